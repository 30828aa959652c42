package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"

	"remora.dev/remora/sidecar/record"
	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/telemetry"
)

func TestACallCostsWhatTheModelOfTheAnswerCostsOrTheOneThatWasAskedFor(t *testing.T) {
	cached := 0.5
	prices := telemetry.Prices{Models: []telemetry.Price{{Model: "dear", Input: 10, Cached: &cached, Output: 100}, {Model: "cheap", Input: 1, Output: 2}}}
	f := func(r record.Record, priced bool, want float64) {
		t.Helper()
		r.Provider = routing.Ref{Kind: "LLMProvider", Namespace: "demo", Name: "qwen"}
		price(&r, &prices)
		if difference := r.Cost - want; r.Priced != priced || difference > 1e-12 || difference < -1e-12 {
			t.Errorf("%+v", r)
		}
	}
	u := record.Usage{Input: 1000, Cached: 400, Output: 10, Reported: true}
	f(record.Record{ResponseModel: "dear", RequestModel: "cheap", Usage: u}, true, (600*10+400*0.5+10*100)/1e6)
	f(record.Record{ResponseModel: "cheap-2025", RequestModel: "cheap", Usage: u}, true, (1000+20)/1e6)
	f(record.Record{ResponseModel: "other", RequestModel: "another", Usage: u}, false, 0)
	f(record.Record{Usage: u}, false, 0)
	f(record.Record{RequestModel: "cheap", Usage: record.Usage{Input: 5, Output: 5, EstimatedOutput: 5, Reported: true}}, true, 25/1e6)
	f(record.Record{RequestModel: "cheap"}, false, 0) // it was refused
	f(record.Record{RequestModel: "cheap", Usage: record.Usage{Reported: true}}, true, 0)
}

// answering is a provider that says what it took.
func answering(t *testing.T) (config string) {
	t.Helper()
	return providing(t, nil, func(w http.ResponseWriter, q *http.Request) {
		_, _ = io.Copy(io.Discard, q.Body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"model":"qwen-2025","choices":[{"message":{"content":"Hello"}}],"usage":{"prompt_tokens":25,"completion_tokens":310}}`)
	})
}

const question = `{"model":"qwen","messages":[{"role":"user","content":"my password: hunter2"}]}`

func (s *sidecar) ask() int {
	s.t.Helper()
	q, err := http.NewRequestWithContext(s.t.Context(), "POST", "http://"+s.listen+"/v1/chat/completions", strings.NewReader(question))
	if err != nil {
		s.t.Fatal(err)
	}
	q.Host = "127.0.0.1"
	q.Header.Set("Authorization", "Bearer "+theKey)
	res, err := http.DefaultClient.Do(q)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, res.Body)
	return res.StatusCode
}

const theKey = "sk-" + "of-the-app-0123456789"

func TestLinesOfRequestsAreOnStandardOutputAndAllElseOnStandardError(t *testing.T) {
	process := exec.CommandContext(t.Context(), os.Args[0], "proxy", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--health", "127.0.0.1:0", "--config", answering(t))
	process.Env = append(os.Environ(), "TEST_AS_SIDECAR=1", "REMORA_POD=sleep-1", "REMORA_NAMESPACE=demo", "REMORA_WORKLOAD=Deployment/sleep", "REMORA_SERVICE_ACCOUNT=sleeper")
	stdout, err := process.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s := startProcess(t, process)
	if status := s.ask(); status != 200 {
		t.Errorf("status %d", status)
	}
	lines := bufio.NewScanner(stdout)
	if !lines.Scan() {
		t.Fatal("there is no line")
	}
	var got struct {
		Time, Logger, Pod, Namespace, Workload, Host, Provider, Operation, Code string
		Account                                                                 string `json:"service_account"`
		Model                                                                   string `json:"request_model"`
		Asked                                                                   string `json:"asked_model"`
		Answered                                                                string `json:"response_model"`
		Prompt                                                                  int    `json:"request_prompt_tokens"`
		Completion                                                              int    `json:"request_completion_tokens"`
		Status                                                                  int
		Total                                                                   float64 `json:"total_ms"`
		Added                                                                   float64 `json:"added_ms"`
		Sent                                                                    int     `json:"request_bytes"`
	}
	if err := json.Unmarshal(lines.Bytes(), &got); err != nil {
		t.Fatalf("%s: %v", lines.Bytes(), err)
	}
	if got.Logger != "access" || got.Pod != "sleep-1" || got.Namespace != "demo" || got.Workload != "Deployment/sleep" || got.Account != "sleeper" ||
		got.Host != "127.0.0.1" || got.Provider != "default/local" || got.Operation != "chat" || got.Status != 200 || got.Code != "" ||
		got.Model != "qwen" || got.Asked != "qwen" || got.Answered != "qwen-2025" || got.Prompt != 25 || got.Completion != 310 ||
		got.Sent != len(question) || got.Total <= 0 || got.Added <= 0 || got.Added > got.Total {
		t.Errorf("%s", lines.Bytes())
	}
	s.signal()
	rest, _ := io.ReadAll(s.log)
	if !bytes.Contains(rest, []byte("stopping")) || bytes.Contains(rest, []byte(`"logger":"access"`)) {
		t.Errorf("standard error has\n%s", rest)
	}
	for lines.Scan() {
		t.Errorf("standard output has as well: %s", lines.Bytes())
	}
	if said := string(rest) + lines.Text(); strings.Contains(said, "hunter2") || strings.Contains(said, theKey) {
		t.Errorf("what the app said, or its key, is logged: %s", said)
	}
}

func TestRequestsDoNotWaitForAReaderOfTheirLines(t *testing.T) {
	process := exec.CommandContext(t.Context(), os.Args[0], "proxy", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--health", "127.0.0.1:0", "--config", answering(t))
	process.Env = append(os.Environ(), "TEST_AS_SIDECAR=1")
	unread, err := process.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s := startProcess(t, process)
	go func() { _, _ = io.Copy(io.Discard, s.log) }()
	const dropped = `remora_log_lines_dropped_total{log="access"} `
	for round := 0; ; round++ {
		for range 200 {
			if status := s.ask(); status != 200 {
				t.Fatalf("status %d", status)
			}
		}
		_, metrics := s.get(s.health + "/metrics")
		_, after, found := strings.Cut(metrics, dropped)
		if !found {
			t.Fatalf("no %s", dropped)
		}
		if !strings.HasPrefix(after, "0\n") {
			break // what a pipe and the room for waiting lines hold is a megabyte at most
		}
		if round == 30 {
			t.Fatal("nothing is dropped, and nobody reads")
		}
	}
	// Once somebody reads, it says that lines are missing.
	lines := bufio.NewScanner(unread)
	for lines.Scan() && !strings.Contains(lines.Text(), `"missing_lines":`) {
		if !json.Valid(lines.Bytes()) {
			t.Fatalf("%s", lines.Bytes())
		}
	}
	if lines.Err() != nil || !strings.Contains(lines.Text(), `"missing_lines":`) {
		t.Errorf("it does not say that lines are missing: %v", lines.Err())
	}
}
