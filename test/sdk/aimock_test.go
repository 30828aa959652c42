package sdk_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"testing"
)

// aimock is npm's @copilotkit/aimock, a provider of other people's making: what it says and how it breaks is not ours.
// It speaks plain HTTP, as a provider within a cluster may.
type aimock struct{ *program }

const mockPort = "4010"

func startMock() (*aimock, error) {
	node, err := nodeBinary()
	if err != nil {
		return nil, err
	}
	command := exec.Command(node, "node/node_modules/@copilotkit/aimock/dist/cli.js", "--host", "127.0.0.1", "--port", mockPort,
		"--fixtures", "node/aimock.json", "--validate-on-load", "--strict", "--journal-max", "0", "--log-level", "warn")
	command.Env = []string{"AIMOCK_API_KEYS=" + mockedKey}
	p, err := start("aimock", command)
	if err != nil {
		return nil, err
	}
	return &aimock{p}, p.ready("http://127.0.0.1:" + mockPort + "/health")
}

func (a *aimock) stop() { a.kill() }

// entry is a request in aimock's journal.
type entry struct {
	Method, Path string
	Headers      map[string]string
	Body         any
}

// requests are what aimock got, by our marks.
func (a *aimock) requests(t *testing.T) map[string][]entry {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1:"+mockPort+"/__aimock/journal", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+mockedKey)
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	var all []entry
	if err := json.NewDecoder(answer.Body).Decode(&all); err != nil || answer.StatusCode != http.StatusOK {
		t.Fatal(fmt.Errorf("aimock's journal: %s %w", answer.Status, err))
	}
	found := map[string][]entry{}
	for _, e := range all {
		mark := e.Headers["x-test-call"]
		found[mark] = append(found[mark], e)
	}
	return found
}
