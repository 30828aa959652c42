package sdk_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"remora.dev/remora/test/llmserver"
	"remora.dev/remora/test/netns"
)

const (
	sidecarProxy  = "127.0.0.1:14001"
	sidecarHealth = "127.0.0.1:14021"

	// folderVariable hands the folder with the sidecar's binary to the process inside the namespace.
	folderVariable = "REMORA_SDK_TEST_FOLDER"
)

var (
	provider *llmserver.Server
	trusted  string // the file with the provider's authority
)

func TestMain(m *testing.M) {
	// Outside, where modules can still be downloaded.
	if os.Getenv(folderVariable) == "" {
		if err := build(); err != nil {
			fmt.Fprintf(os.Stderr, "build the sidecar: %v\n", err)
			os.Exit(1)
		}
	}
	netns.Enter(map[string]string{qwen: "127.0.0.1", moonshot: "127.0.0.1", locked: "127.0.0.1"})
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
	command := exec.Command("go", "build", "-race", "-o", filepath.Join(folder, "sidecar"), "./sidecar")
	command.Dir = "../.."
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return os.Setenv(folderVariable, folder)
}

// run starts the provider and the sidecar, runs the tests, and judges how the sidecar ends.
func run(m *testing.M, folder string) (code int, err error) {
	defer os.RemoveAll(folder)
	provider, err = llmserver.Start(llmserver.Options{
		Addr: "127.0.0.1:443", Hosts: []string{qwen, moonshot, locked},
		Keys: map[string]string{qwen: qwenKey, moonshot: moonshotKey, locked: "sk-the-one-that-is-wanted"},
	})
	if err != nil {
		return 0, err
	}
	defer provider.Close()
	trusted = filepath.Join(folder, "ca.pem")
	if err := provider.WriteCA(trusted); err != nil {
		return 0, err
	}
	config := filepath.Join(folder, "config")
	if err := writeConfig(config); err != nil {
		return 0, err
	}
	sidecar := exec.Command(filepath.Join(folder, "sidecar"), "proxy", "--config", config, "--trusted-ca", trusted,
		"--listen", sidecarProxy, "--listen", "127.0.0.1:80", "--health", sidecarHealth)
	var output bytes.Buffer
	sidecar.Stdout, sidecar.Stderr = &output, &output
	sidecar.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // also when a test runs out of time
	if err := sidecar.Start(); err != nil {
		return 0, err
	}
	ended := make(chan error, 1)
	go func() { ended <- sidecar.Wait() }()
	if err := ready(ended); err != nil {
		_ = sidecar.Process.Kill()
		<-ended
		return 0, fmt.Errorf("the sidecar is not ready: %w\n%s", err, &output)
	}
	code = m.Run()
	return code, stop(sidecar, ended, &output)
}

// writeConfig fills the keys into the article's manifests and adds what else the tests need.
func writeConfig(folder string) error {
	if err := os.Mkdir(folder, 0o700); err != nil {
		return err
	}
	files, err := filepath.Glob("../../config/samples/asm/*.yaml")
	if err != nil || len(files) == 0 {
		return errors.Join(err, errors.New("the article's manifests are gone"))
	}
	keys := strings.NewReplacer("${DASHSCOPE_API_KEY}", qwenKey, "${MOONSHOT_API_KEY}", moonshotKey, "${LOCKED_API_KEY}", lockedKey)
	for _, file := range append(files, "further.yaml") {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(folder, filepath.Base(file)), []byte(keys.Replace(string(text))), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// ready asks the sidecar until it says so, or has ended.
func ready(ended <-chan error) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+sidecarHealth+"/readyz", nil)
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
		case how := <-ended:
			return fmt.Errorf("it ended: %w", how)
		case <-ctx.Done():
			return err
		case <-again.C:
		}
	}
}

// stop ends the sidecar as Kubernetes would. It has to end well, without a data race, and without having named a key.
func stop(sidecar *exec.Cmd, ended <-chan error, output *bytes.Buffer) error {
	if err := sidecar.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("the sidecar is gone: %w\n%s", err, output)
	}
	select {
	case err := <-ended:
		if err != nil {
			return fmt.Errorf("the sidecar after SIGTERM: %w\n%s", err, output)
		}
	case <-time.After(20 * time.Second):
		_ = sidecar.Process.Kill()
		<-ended
		return fmt.Errorf("the sidecar was still there 20 s after SIGTERM\n%s", output)
	}
	for _, bad := range []string{"DATA RACE", qwenKey, moonshotKey, lockedKey} {
		if strings.Contains(output.String(), bad) {
			return fmt.Errorf("the sidecar printed %s\n%s", bad, output)
		}
	}
	return nil
}
