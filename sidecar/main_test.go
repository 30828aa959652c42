package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

const valid = `apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMProvider
metadata: {name: qwen}
spec: {host: qwen.example}
`

func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// call runs a command to its end.
func call(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs strings.Builder
	code = run(t.Context(), args, &out, &errs)
	return code, out.String(), errs.String()
}

func TestCheckPrintsEachProblemUnderItsObject(t *testing.T) {
	path := write(t, "bad.yaml", strings.Replace(valid, "qwen.example", `"http://qwen.example"`, 1)+"---\n"+strings.Replace(valid, "name: qwen", "name: moon", 1))
	code, out, _ := call(t, "check", "--config", path)
	want := path + `:1  LLMProvider default/qwen
  invalid     spec.host: "http://qwen.example" has a scheme: write only the name: qwen.example (InvalidValue)
2 objects: 1 invalid, 0 unresolved, 0 warnings
`
	if code != 1 || out != want {
		t.Errorf("exit code %d\n%s\nwant\n%s", code, out, want)
	}
}

func TestCheckOfAGoodConfigurationFindsNothing(t *testing.T) {
	code, out, _ := call(t, "check", "--config", write(t, "good.yaml", valid+"---\napiVersion: v1\nkind: Pod\nmetadata: {name: p}\n"))
	if code != 0 || out != "1 object (1 of other kinds ignored): nothing wrong\n" {
		t.Errorf("exit code %d: %q", code, out)
	}
}

func TestCheckSaysWhereItFoundNothing(t *testing.T) {
	path := t.TempDir()
	code, out, _ := call(t, "check", "--config", path)
	if code != 0 || !strings.Contains(out, "There is nothing that is read in "+path) {
		t.Errorf("exit code %d: %q", code, out)
	}
}

func TestExitCodesTellUseFromFailure(t *testing.T) {
	config := write(t, "good.yaml", valid)
	f := func(wantCode int, want string, args ...string) {
		t.Helper()
		code, out, errs := call(t, args...)
		if code != wantCode || !strings.Contains(out+errs, want) {
			t.Errorf("%v: exit code %d\n%s%s", args, code, out, errs)
		}
	}
	f(0, "sidecar proxy --config", "help")
	f(0, version, "version")
	f(2, "sidecar help", "serve")
	f(2, "--listen", "proxy", "--config", config, "--listen", "0.0.0.0:0")
	f(1, "no such file or directory", "check", "--config", config+"x")
	anywhere := []string{"proxy", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--health", "127.0.0.1:0"}
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	f(2, "--config is missing", anywhere...)
	f(1, "--kubeconfig "+config+"x: ", append(anywhere, "--kubeconfig", config+"x")...)
	f(1, "--config "+config+"x: ", "proxy", "--config", config+"x", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--health", "127.0.0.1:0")
	labels := write(t, "labels", "app=\"sleep\"\ntier\n")
	f(1, "--labels-file "+labels+": line 2: is not a label", append(anywhere, "--config", config, "--labels-file", labels)...)
	f(1, "--labels-file "+labels+"x: no such file or directory", append(anywhere, "--config", config, "--labels-file", labels+"x")...)
	f(1, "--trusted-ca "+config, "proxy", "--config", config, "--trusted-ca", config)
	f(1, "--trusted-ca", "proxy", "--config", config, "--trusted-ca", config+"x")
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, flag := range []string{"--listen", "--admin", "--health"} {
		args := []string{"proxy", "--config", config}
		for _, other := range []string{"--listen", "--admin", "--health"} {
			if other != flag {
				args = append(args, other, "127.0.0.1:0")
			}
		}
		f(1, flag+" "+taken.Addr().String()+": another process has that port", append(args, flag, taken.Addr().String())...)
	}
}

// TestMain lets a test start the sidecar as a process of its own: as this binary.
func TestMain(m *testing.M) {
	if os.Getenv("TEST_AS_SIDECAR") != "" {
		main()
	}
	if pid := os.Getenv("TEST_AS_TRACER"); pid != "" {
		trace(pid)
	}
	os.Exit(m.Run())
}

// sidecar is a process that serves.
type sidecar struct {
	t       *testing.T
	process *exec.Cmd
	log     io.ReadCloser
	listen  string
	admin   string
	health  string
}

// start gives a sidecar that says that it serves, with the flags that say where its configuration is.
func start(t *testing.T, flags ...string) *sidecar {
	t.Helper()
	return startProgram(t, os.Args[0], flags...)
}

// startProgram runs another build of the sidecar.
func startProgram(t *testing.T, program string, flags ...string) *sidecar {
	t.Helper()
	flags = append([]string{"proxy", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--health", "127.0.0.1:0"}, flags...)
	process := exec.CommandContext(t.Context(), program, flags...)
	process.Env = append(os.Environ(), "TEST_AS_SIDECAR=1")
	s := startProcess(t, process)
	go func() { _, _ = io.Copy(io.Discard, s.log) }()
	return s
}

// startProcess is start for a command. What it writes to its log after it serves has to be read.
func startProcess(t *testing.T, process *exec.Cmd) *sidecar {
	t.Helper()
	s := &sidecar{t: t, process: process}
	logged, err := s.process.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.process.Process.Kill() })
	lines := bufio.NewScanner(logged)
	for lines.Scan() {
		var line struct {
			Msg, Admin, Health string
			Listen             []string
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			t.Fatalf("%s: %v", lines.Text(), err)
		}
		if line.Msg == "serving" {
			s.listen, s.admin, s.health = line.Listen[0], line.Admin, "http://"+line.Health
			s.log = logged
			return s
		}
	}
	t.Fatal("it ended before it served")
	return nil
}

func (s *sidecar) get(url string) (int, string) {
	s.t.Helper()
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get(url)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

func (s *sidecar) signal() {
	s.t.Helper()
	if err := s.process.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
}

func TestTheProxyServesUntilItIsStopped(t *testing.T) {
	s := start(t, "--config", write(t, "all.yaml", valid))
	if status, body := s.get(s.health + "/readyz"); status != 200 {
		t.Errorf("readyz: %d %s", status, body)
	}
	if status, body := s.get(s.admin); status != 200 || !strings.Contains(body, "host qwen.example") {
		t.Errorf("%s: %d %s", s.admin, status, body)
	}
	if status, body := s.get("http://" + s.listen + "/v1/models"); status < 400 || !strings.Contains(body, `"error"`) {
		t.Errorf("a call to no known host: %d %s", status, body)
	}
	s.signal()
	if err := s.process.Wait(); err != nil {
		t.Errorf("it did not end well: %v", err)
	}
}

func TestLabelsOfThePodAreFollowedInTheirFile(t *testing.T) {
	labels := write(t, "labels", "app=\"awake\"\n")
	s := start(t, "--config", write(t, "all.yaml", strings.Replace(valid, "{host", "{workloadSelector: {labels: {app: sleep}}, host", 1)), "--labels-file", labels)
	s.await(s.admin, "refused NotForThisWorkload")
	if err := os.WriteFile(labels, []byte("app=\"sleep\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.await(s.admin, "https://qwen.example")
	s.signal()
	if err := s.process.Wait(); err != nil {
		t.Errorf("it did not end well: %v", err)
	}
}

func TestASecondSignalEndsADrainAtOnce(t *testing.T) {
	s := start(t, "--config", write(t, "all.yaml", valid))
	// A request that is under way: its body is still to come.
	conn, err := net.Dial("tcp", s.listen)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "POST / HTTP/1.1\r\nHost: qwen.example\r\nExpect: 100-continue\r\nContent-Length: 100\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err != nil { // it has been taken up
		t.Fatal(err)
	}
	s.signal()
	for {
		status, body := s.get(s.health + "/readyz")
		if status == 503 && strings.Contains(body, "shutting down") {
			break
		}
	}
	s.signal()
	var exit *exec.ExitError
	if err := s.process.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGTERM {
		t.Errorf("it ended otherwise: %v", err)
	}
}
