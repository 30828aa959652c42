package sdk_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"remora.dev/remora/test/llmserver"
	"remora.dev/remora/test/netns"
)

// folderVariable hands the folder with the product's binaries to the process inside the namespace.
const folderVariable = "REMORA_SDK_TEST_FOLDER"

var (
	provider *llmserver.Server
	mock     *aimock
	trusted  string // the file with the provider's authority
	hosts    string // the file that tells an app behind the redirection where the providers are
)

func TestMain(m *testing.M) {
	// Outside, where modules can still be downloaded.
	if os.Getenv(folderVariable) == "" {
		if err := build(); err != nil {
			fmt.Fprintf(os.Stderr, "build the sidecar: %v\n", err)
			os.Exit(1)
		}
	}
	names := map[string]string{}
	for host := range providers {
		names[host] = "127.0.0.1"
	}
	netns.Enter(names)
	code, err := run(m, os.Getenv(folderVariable))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func build() error {
	folder, err := os.MkdirTemp("", "remora-sdk-")
	if err != nil {
		return err
	}
	command := exec.Command("go", "build", "-race", "-o", folder+"/", "./sidecar", "./sidecar/redirect")
	command.Dir = "../.."
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return os.Setenv(folderVariable, folder)
}

// run starts the providers and the sidecar, has the app's connections redirected, runs the tests, and judges how the
// sidecar ends.
func run(m *testing.M, folder string) (code int, err error) {
	defer os.RemoveAll(folder)
	if err := os.Chmod(folder, 0o755); err != nil { // the sidecar is another user
		return 0, err
	}
	keys := map[string]string{}
	var names []string
	for host, p := range providers {
		if host != mocked {
			names, keys[host] = append(names, host), p.key
		}
	}
	keys[locked] = "sk-the-one-that-is-wanted"
	if provider, err = llmserver.Start(llmserver.Options{Addr: "127.0.0.1:443", Hosts: names, Keys: keys}); err != nil {
		return 0, err
	}
	defer provider.Close()
	trusted = filepath.Join(folder, "ca.pem")
	if err := provider.WriteCA(trusted); err != nil {
		return 0, err
	}
	if mock, err = startMock(); err != nil {
		return 0, err
	}
	defer mock.stop()
	if hosts, err = redirect(folder); err != nil {
		return 0, err
	}
	s, err := startSidecar(folder)
	if err != nil {
		return 0, err
	}
	// The tests wait more than they work.
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil {
		return 0, err
	}
	code = m.Run()
	return code, s.stop()
}

// program is something that runs beside the tests, and does not outlive them.
type program struct {
	name    string
	process *os.Process
	output  bytes.Buffer
	ended   chan error
}

func start(name string, command *exec.Cmd) (*program, error) {
	p := &program{name: name, ended: make(chan error, 1)}
	command.Stdout, command.Stderr = &p.output, &p.output
	if command.SysProcAttr == nil {
		command.SysProcAttr = &syscall.SysProcAttr{}
	}
	command.SysProcAttr.Pdeathsig = syscall.SIGKILL // also when a test runs out of time
	if err := command.Start(); err != nil {
		return nil, err
	}
	p.process = command.Process
	go func() { p.ended <- command.Wait() }()
	return p, nil
}

// ready asks the program until it answers 200, or has ended.
func (p *program) ready(url string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		answer, err := http.DefaultClient.Do(request)
		if err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return nil
			}
			err = errors.New(answer.Status)
		}
		select {
		case how := <-p.ended:
			return fmt.Errorf("%s ended before it was ready: %w\n%s", p.name, how, &p.output)
		case <-ctx.Done():
			p.kill()
			return fmt.Errorf("%s is not ready: %w\n%s", p.name, err, &p.output)
		case <-again.C:
		}
	}
}

func (p *program) kill() {
	_ = p.process.Kill()
	<-p.ended
}
