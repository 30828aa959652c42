// Package running is the third judge of the corpus: a sidecar that runs each of its files.
package running

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"remora.dev/remora/test/netns"
)

var binary string

func TestMain(m *testing.M) {
	netns.Enter(nil) // no name resolves here, so no call of the corpus leaves the machine
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "running-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "sidecar")
		if out, err := exec.Command("go", "build", "-o", binary, "../../sidecar").CombinedOutput(); err != nil {
			panic(string(out))
		}
		return m.Run()
	}())
}

func files(t *testing.T, folder string) []string {
	t.Helper()
	all, err := filepath.Glob("../cases/" + folder + "/*.yaml")
	if err != nil || len(all) < 10 {
		t.Fatalf("the corpus has %d files in %s (%v)", len(all), folder, err)
	}
	return all
}

func TestTheSidecarRunsWhatIsValid(t *testing.T) {
	for _, file := range files(t, "valid") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			if out, code := check(t, file); code != 0 {
				t.Errorf("sidecar check: exit code %d\n%s", code, out)
			}
			s := start(t, file)
			for _, host := range s.hosts(t) {
				if status, code := s.call(t, host); status == http.StatusMisdirectedRequest || code == "InvalidConfiguration" {
					t.Errorf("%s is answered %d %s", host, status, code)
				}
			}
		})
	}
}

func TestTheSidecarRefusesWhatIsInvalidAndPassesNothingOn(t *testing.T) {
	for _, file := range files(t, "invalid") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			out, code := check(t, file)
			if code != 1 {
				t.Errorf("sidecar check: exit code %d", code)
			}
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(string(text)) {
				if want, ok := strings.CutPrefix(strings.TrimRight(line, "\r\n"), "# want: "); ok && !says(out, want) {
					t.Errorf("sidecar check does not say %q:\n%s", want, out)
				}
			}
			s := start(t, file)
			for _, host := range s.hosts(t) {
				if status, code := s.call(t, host); status != http.StatusServiceUnavailable && status != http.StatusNotFound && status != http.StatusBadGateway {
					t.Errorf("%s is answered %d %s", host, status, code)
				}
			}
		})
	}
}

// says looks for a line that is about a field and has a part of a message.
func says(out, want string) bool {
	field, part, _ := strings.Cut(want, ": ")
	for line := range strings.Lines(out) {
		if strings.Contains(line, " "+field+": ") && strings.Contains(line, part) {
			return true
		}
	}
	return false
}

// check runs the command that tells what admission would say.
func check(t *testing.T, file string) (out string, code int) {
	t.Helper()
	text, err := exec.CommandContext(t.Context(), binary, "check", "--config", file).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if exit != nil {
		code = exit.ExitCode()
	}
	return string(text), code
}

// sidecar is one that serves a file of the corpus.
type sidecar struct {
	client *http.Client
	admin  string
}

func start(t *testing.T, file string) *sidecar {
	t.Helper()
	const any = "127.0.0.1:0"
	cmd := exec.Command(binary, "proxy", "--config", file, "--listen", any, "--admin", any, "--health", any)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var serving struct {
		Msg    string
		Listen []string
		Admin  string
	}
	log := bufio.NewScanner(stderr)
	log.Buffer(nil, 1<<20)
	for serving.Msg != "serving" {
		if !log.Scan() {
			t.Fatalf("the sidecar ended before it served: %v", cmd.Wait())
		}
		_ = json.Unmarshal(log.Bytes(), &serving) // other lines have other fields
	}
	rest := make(chan struct{})
	go func() {
		defer close(rest)
		_, _ = io.Copy(io.Discard, stderr)
	}()
	s := &sidecar{admin: serving.Admin, client: &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: serving.Listen[0]}),
	}}}
	t.Cleanup(func() {
		s.client.CloseIdleConnections()
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-rest
		if err := cmd.Wait(); err != nil {
			t.Errorf("the sidecar ended with %v", err)
		}
	})
	return s
}

// hosts gives the owned hosts, as the sidecar itself lists them.
func (s *sidecar) hosts(t *testing.T) []string {
	t.Helper()
	resp, err := http.Get(s.admin)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s %v", s.admin, resp.Status, err)
	}
	var all []string
	for line := range strings.Lines(string(text)) {
		if names, ok := strings.CutPrefix(line, "host "); ok && !strings.HasPrefix(names, "*") {
			all = append(all, strings.Fields(names)...)
		}
	}
	return all
}

// call asks for a chat completion at a host.
func (s *sidecar) call(t *testing.T, host string) (status int, code string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	// The name goes into the Host header: some of the corpus are no names that a URL could have.
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://sidecar.invalid/", strings.NewReader(`{"messages":[]}`))
	if err != nil {
		t.Fatal(err)
	}
	req.URL.Host = host
	resp, err := s.client.Do(req)
	if err != nil {
		t.Fatalf("%s: %v", host, err)
	}
	defer resp.Body.Close()
	var answer struct{ Error struct{ Code string } }
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || answer.Error.Code == "" {
		t.Errorf("%s is answered %d, not in OpenAI's shape (%v)", host, resp.StatusCode, err)
	}
	return resp.StatusCode, answer.Error.Code
}
