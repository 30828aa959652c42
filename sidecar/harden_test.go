package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"remora.dev/remora/apis/v1beta1"
)

const crashKey = "sk-crash-0123456789abcdef"

// crashing is a sidecar of its own user, with a call under way that has a key. Its standard error is read to its end by said.
type crashing struct {
	process *exec.Cmd
	listen  string
	said    func() string
}

func startCrashing(t *testing.T, program string, environment ...string) *crashing {
	t.Helper()
	began, end := make(chan struct{}, 1), make(chan struct{})
	provider, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.Header.Get("Authorization") != "Bearer "+crashKey {
			t.Errorf("the provider got %v", q.Header)
		}
		began <- struct{}{}
		<-end
	})}
	go func() { _ = server.Serve(provider) }()
	t.Cleanup(func() { close(end); _ = server.Close() })
	folder, err := os.MkdirTemp("/tmp", "crashing") //nolint:usetesting // another user may enter it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	config := filepath.Join(folder, "all.yaml")
	text := fmt.Sprintf("apiVersion: istio.alibabacloud.com/v1beta1\nkind: LLMProvider\nmetadata: {name: local}\nspec:\n  host: 127.0.0.1\n  port: %d\n"+
		"  tls: {mode: DISABLE, allowInsecureKey: true}\n  configs: {defaultConfig: {openAIConfig: {apiKey: %s}}}\n", provider.Addr().(*net.TCPAddr).Port, crashKey)
	binary, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(folder, "sidecar")
	if err := errors.Join(os.WriteFile(config, []byte(text), 0o600), os.WriteFile(copied, binary, 0o755), os.Chmod(folder, 0o755), os.Chown(config, v1beta1.SidecarUID, v1beta1.SidecarUID)); err != nil {
		t.Fatal(err)
	}
	listen, err := net.Listen("tcp", "127.0.0.1:0") // a free port
	if err != nil {
		t.Fatal(err)
	}
	_ = listen.Close()
	c := &crashing{listen: listen.Addr().String()}
	const limited = `ulimit -d 131072 && exec "$0" "$@"` // to 128 MiB, of which it does not know
	c.process = exec.CommandContext(t.Context(), "/bin/sh", "-c", limited, copied, "proxy", "--listen", c.listen, "--admin", "127.0.0.1:0", "--health", "127.0.0.1:0", "--config", config)
	c.process.Env = append([]string{"GOMEMLIMIT=8GiB"}, environment...)
	c.process.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: v1beta1.SidecarUID, Gid: v1beta1.SidecarUID}}
	c.process.Dir = folder
	log, err := c.process.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.process.Process.Kill() })
	var said bytes.Buffer
	serving := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		var line [4096]byte
		told := false
		for {
			n, err := log.Read(line[:])
			said.Write(line[:n])
			if !told && bytes.Contains(said.Bytes(), []byte(`"serving"`)) {
				told = true
				close(serving)
			}
			if err != nil {
				return
			}
		}
	}()
	c.said = func() string {
		<-ended
		return said.String()
	}
	select {
	case <-serving:
	case <-ended:
		t.Fatalf("it ended before it served: %s", said.String())
	}
	app, err := net.Dial("tcp", c.listen)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = app.Close() })
	if _, err := io.WriteString(app, "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 15\r\n\r\n{\"messages\":[]}"); err != nil {
		t.Fatal(err)
	}
	<-began
	return c
}

func TestACrashTellsNoKey(t *testing.T) {
	program := released(t)
	for _, traceback := range []string{"", "all", "system", "crash"} {
		for name, crash := range map[string]func(c *crashing) error{
			"SIGABRT": func(c *crashing) error { return c.process.Process.Signal(syscall.SIGABRT) },
			"SIGQUIT": func(c *crashing) error { return c.process.Process.Signal(syscall.SIGQUIT) },
			"SIGSEGV": func(c *crashing) error { return c.process.Process.Signal(syscall.SIGSEGV) },
		} {
			t.Run(name+", GOTRACEBACK="+traceback, func(t *testing.T) {
				c := startCrashing(t, program, "GOTRACEBACK="+traceback)
				if err := crash(c); err != nil {
					t.Fatal(err)
				}
				said := c.said()
				if err := c.process.Wait(); err == nil {
					t.Error("it ended well")
				}
				if !strings.Contains(said, "goroutine ") {
					t.Errorf("it told nothing of its crash:\n%s", said)
				}
				if strings.Contains(said, crashKey) || strings.Contains(said, fmt.Sprintf("%x", crashKey)) {
					t.Error("the key is in what it told")
				}
				if cores, _ := filepath.Glob(filepath.Join(c.process.Dir, "*core*")); len(cores) > 0 {
					t.Errorf("there is a core: %v", cores)
				}
			})
		}
	}
}

// Another container of the pod can have the sidecar's user, where no guard keeps it from that.
func TestAProcessOfTheSameUserCannotLookIntoTheSidecar(t *testing.T) {
	c := startCrashing(t, released(t))
	at := "/proc/" + strconv.Itoa(c.process.Process.Pid)
	same := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: v1beta1.SidecarUID, Gid: v1beta1.SidecarUID}}
	run := func(name string, args ...string) (string, error) {
		command := exec.CommandContext(t.Context(), name, args...)
		command.SysProcAttr, command.Dir = same, "/"
		out, err := command.CombinedOutput()
		return string(out), err
	}
	if out, err := run("head", "-c", "1", at+"/status"); err != nil {
		t.Fatalf("that it is there can be seen: %v %s", err, out)
	}
	for _, file := range []string{"environ", "mem", "maps", "smaps", "auxv", "io", "stack", "syscall", "pagemap"} {
		if out, err := run("head", "-c", "1", at+"/"+file); err == nil || !strings.Contains(out, "ermi") && !strings.Contains(out, "not permitted") {
			t.Errorf("%s: %v %q", file, err, out)
		}
	}
	for _, file := range []string{"fd", "map_files", "cwd/", "root/", "task/" + strconv.Itoa(c.process.Process.Pid) + "/fd"} {
		if out, err := run("ls", at+"/"+file); err == nil || !strings.Contains(out, "ermission denied") {
			t.Errorf("%s: %v %q", file, err, out)
		}
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(c.process.Dir, "tracer")
	if binary, err := os.ReadFile(program); err != nil || os.WriteFile(copied, binary, 0o755) != nil {
		t.Fatal("the tracer cannot be written")
	}
	attach := exec.CommandContext(t.Context(), copied)
	attach.SysProcAttr, attach.Dir = same, "/"
	attach.Env = []string{"TEST_AS_TRACER=" + strconv.Itoa(c.process.Process.Pid)}
	if out, err := attach.CombinedOutput(); err != nil || string(out) != "operation not permitted\noperation not permitted\n" {
		t.Errorf("tracing it, and reading its memory: %v %q", err, out)
	}
	limits, err := os.ReadFile(at + "/limits")
	if err != nil || !regexp.MustCompile(`Max core file size +0 +0 `).Match(limits) {
		t.Errorf("%v, it may have a core:\n%s", err, limits)
	}
}

// trace tries to trace a process and to read its memory, and says what it is told.
func trace(pid string) {
	n, _ := strconv.Atoi(pid)
	fmt.Println(unix.PtraceSeize(n)) //nolint:forbidigo // it is another process that reads it
	_, err := unix.ProcessVMReadv(n, []unix.Iovec{{Base: new(byte), Len: 1}}, []unix.RemoteIovec{{Base: 1 << 22, Len: 1}}, 0)
	fmt.Println(err) //nolint:forbidigo // as above
	os.Exit(0)
}
