package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// access is a line of the access log, as far as it is shown to people: see docs/access-log.md.
type access struct {
	Logger        string    `json:"logger"`
	Time          time.Time `json:"time"`
	Pod           string    `json:"pod"`
	Namespace     string    `json:"namespace"`
	Host          string    `json:"host"`
	Rule          string    `json:"rule"`
	Provider      string    `json:"provider"`
	RequestModel  string    `json:"request_model"`
	AskedModel    string    `json:"asked_model"`
	ResponseModel string    `json:"response_model"`
	Status        int       `json:"status"`
	Code          string    `json:"code"`
	CutBy         string    `json:"cut_by"`
	Retries       int       `json:"retries"`
	Total         float64   `json:"total_ms"`
	First         float64   `json:"first_token_ms"`
	Input         int64     `json:"request_prompt_tokens"`
	Output        int64     `json:"request_completion_tokens"`
	Estimated     int64     `json:"estimated_prompt_tokens"`
	EstimatedOut  int64     `json:"estimated_completion_tokens"`
	Cost          *float64  `json:"cost"`
	Currency      string    `json:"currency"`
	Client        string    `json:"client"`
	Missing       int       `json:"missing_lines"`
}

// accessLogger is what the lines of the access log have in their field "logger". The diagnostics beside them have another, or none.
const accessLogger = "access"

// parseAccess reads a line of a sidecar's output; nil: it is none of the access log.
func parseAccess(line []byte) *access {
	if !bytes.HasPrefix(line, []byte("{")) {
		return nil
	}
	var a access
	if err := json.Unmarshal(line, &a); err != nil || a.Logger != accessLogger {
		return nil
	}
	return &a
}

// faulty tells whether a call failed, was refused, tried again or cut.
func (a *access) faulty() bool {
	return a.Code != "" || a.Status >= 400 || a.Status == 0 || a.Retries > 0 || a.CutBy != ""
}

// access writes a line for people: when, who, what became of it, which model, for how many tokens, how fast, by which rule.
func (p *page) access(pod podID, a *access) error {
	clock := span{a.Time.Local().Format("15:04:05.000"), faint}
	who := span{pod.String(), cyan}
	space := span{text: " "}
	if a.Missing > 0 {
		return p.line(clock, space, who, span{fmt.Sprintf(" %d lines are missing here, as they were not read fast enough", a.Missing), yellow})
	}
	line := []span{clock, space, who, space, {statusWord(a.Status), statusColour(a)}, {text: " " + cmp.Or(a.RequestModel, a.AskedModel, a.Host, "-")}}
	if input, output := a.Input+a.Estimated, a.Output+a.EstimatedOut; input+output > 0 {
		about := ""
		if a.Estimated+a.EstimatedOut > 0 {
			about = "~"
		}
		line = append(line, span{text: fmt.Sprintf(" %s%d+%d tokens", about, input, output)})
	}
	line = append(line, space, span{text: took(a.Total)})
	if a.First > 0 {
		line = append(line, span{text: " first " + took(a.First)})
	}
	if a.Cost != nil {
		line = append(line, span{text: " " + strconv.FormatFloat(*a.Cost, 'g', 4, 64) + " " + a.Currency})
	}
	if a.Rule != "" {
		line = append(line, span{" " + a.Rule, faint})
	}
	if a.Provider != "" && a.Provider != a.Rule {
		line = append(line, span{text: " → " + a.Provider})
	}
	if a.Retries > 0 {
		line = append(line, span{fmt.Sprintf(" retries %d", a.Retries), yellow})
	}
	if a.Code != "" {
		line = append(line, span{" " + a.Code, red})
	}
	if a.CutBy != "" {
		line = append(line, span{" cut by " + a.CutBy, red})
	}
	if a.Client != "" {
		line = append(line, span{text: " from " + a.Client})
	}
	for i := range line {
		line[i].text = cut(line[i].text, 300)
	}
	return p.line(line...)
}

// statusWord is the status; of a call whose app left before there was one, "---".
func statusWord(status int) string {
	if status == 0 {
		return "---"
	}
	return strconv.Itoa(status)
}

func statusColour(a *access) colour {
	switch {
	case a.Status >= 500 || a.Status == 0:
		return red
	case a.Status >= 400:
		return yellow
	}
	return green
}

// took gives milliseconds as a person says them.
func took(ms float64) string { return milliseconds(&ms) }
