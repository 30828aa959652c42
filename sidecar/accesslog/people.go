package accesslog

import (
	"cmp"
	"strconv"
	"time"

	"remora.dev/remora/sidecar/record"
)

// The colours of a terminal.
const (
	plain  = "\x1b[0m"
	faint  = "\x1b[2m"
	red    = "\x1b[31m"
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
)

// appendPeople writes what a person looks for first: when, what became of it, which model, how fast, for how many tokens, by which rule.
func (e *line) appendPeople(b []byte) []byte {
	r := e.record
	b = appendClock(b, r.Start)
	b = appendStatus(b, r.Status)
	b = appendWord(b, e.safe(cmp.Or(r.RequestModel, r.AskedModel, r.Host)))
	b = appendWord(b, r.Total.Round(time.Millisecond).String())
	if r.FirstToken > 0 {
		b = appendWord(append(b, " first"...), r.FirstToken.Round(time.Millisecond).String())
	}
	b = appendTokens(b, &r.Usage)
	if e.joined = e.appendRule(e.joined[:0]); len(e.joined) > 0 {
		b = append(append(append(b, ' '), faint...), e.safe(string(e.joined))...)
		b = append(b, plain...)
	}
	if r.Provider != r.RuleOwner && r.Provider.Name != "" {
		e.joined = appendRef(e.joined[:0], r.Provider)
		b = appendWord(append(b, " →"...), e.safe(string(e.joined)))
	}
	if cost, ok := costOf(r); ok {
		b = strconv.AppendFloat(append(b, ' '), cost, 'g', 4, 64)
		b = appendWord(b, e.safe(currencyOf(e.settings)))
	}
	if r.Retries > 0 {
		b = appendNumber(append(b, " retries "...), r.Retries, "")
	}
	if r.Code != "" || r.Cut != record.Nobody {
		b = append(append(b, ' '), red...)
		b = append(b, e.safe(string(r.Code))...)
		if r.Cut != record.Nobody {
			b = append(append(b, " cut by "...), e.safe(string(r.Cut))...)
		}
		b = append(b, plain...)
	}
	if r.Client != "" {
		b = appendWord(append(b, " from"...), e.safe(r.Client))
	}
	return append(e.appendPeopleCapture(b), '\n')
}

// safe is what a terminal shows and does not obey.
func (e *line) safe(value string) []byte {
	e.room = withoutKey(clean(e.room[:0], value))
	return e.room
}

func (e *line) appendPeopleCapture(b []byte) []byte {
	if !captured(e.record, e.settings) {
		return b
	}
	prompt, answer := e.taken()
	b = strconv.AppendQuote(append(b, " prompt "...), string(prompt.text))
	return strconv.AppendQuote(append(b, " answer "...), string(answer.text))
}

func appendPeopleMissing(b []byte, now time.Time, lines int) []byte {
	b = append(appendClock(b, now), ' ')
	return appendNumber(append(append(b, yellow...), "lines are missing here, as they were not read fast enough: "...), lines, plain+"\n")
}

func appendClock(b []byte, at time.Time) []byte {
	return append(at.Local().AppendFormat(append(b, faint...), time.TimeOnly), plain...)
}

func appendStatus(b []byte, status int) []byte {
	colour := green
	switch {
	case status >= 500 || status == 0:
		colour = red
	case status >= 400:
		colour = yellow
	}
	b = append(append(b, ' '), colour...)
	if status == 0 {
		return append(append(b, "---"...), plain...) // it left before
	}
	return appendNumber(b, status, plain)
}

// appendTokens writes input and output. With estimates in them, a tilde says so.
func appendTokens(b []byte, u *record.Usage) []byte {
	input, output := u.Input+u.EstimatedInput, u.Output+u.EstimatedOutput
	if input == 0 && output == 0 {
		return b
	}
	b = append(b, ' ')
	if u.EstimatedInput != 0 || u.EstimatedOutput != 0 {
		b = append(b, '~')
	}
	b = append(strconv.AppendInt(b, input, 10), '+')
	return append(strconv.AppendInt(b, output, 10), " tokens"...)
}

func appendWord[text string | []byte](b []byte, word text) []byte {
	return append(append(b, ' '), word...)
}

func appendNumber(b []byte, n int, then string) []byte {
	return append(strconv.AppendInt(b, int64(n), 10), then...)
}
