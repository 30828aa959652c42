package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"remora.dev/remora/test/llmserver"
)

const (
	proxyAddr  = "127.0.0.1:14001"
	healthAddr = "127.0.0.1:14021"
	samples    = "config/samples/asm"
)

// keys are what the made-up providers demand. The app never has them.
var keys = map[string]string{"DASHSCOPE_API_KEY": "sk-demo-dashscope", "MOONSHOT_API_KEY": "sk-demo-moonshot"}

// demo is the stage: a provider, a folder with the configuration, the sidecar.
type demo struct {
	ctx      context.Context
	step     int
	terminal bool
	folder   string // everything of the demo
	config   string // what the sidecar follows
	binary   string
	provider *llmserver.Server
	sidecar  *exec.Cmd
	exited   chan error
}

func start(ctx context.Context, binary string) (*demo, error) {
	d := &demo{ctx: ctx, exited: make(chan error, 1)}
	_, err := unix.IoctlGetTermios(int(os.Stdout.Fd()), unix.TCGETS)
	d.terminal = err == nil
	if d.binary, err = filepath.Abs(binary); err != nil {
		return nil, err
	}
	d.provider, err = llmserver.Start(llmserver.Options{
		Addr: "127.0.0.1:443", Hosts: []string{qwen, moonshot}, ChunkDelay: 120 * time.Millisecond,
		Keys: map[string]string{qwen: keys["DASHSCOPE_API_KEY"], moonshot: keys["MOONSHOT_API_KEY"]},
	})
	if err != nil {
		return nil, err
	}
	if d.folder, err = os.MkdirTemp("", "remora-demo-"); err != nil {
		return nil, err
	}
	d.config = filepath.Join(d.folder, "config")
	if err := d.copyConfig(); err != nil {
		d.close()
		return nil, err
	}
	if err := d.startSidecar(); err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

// copyConfig takes the article's manifests as they are, with keys in the place of the variables.
func (d *demo) copyConfig() error {
	if err := os.Mkdir(d.config, 0o700); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(samples, "*.yaml"))
	if err != nil || len(files) == 0 {
		return fmt.Errorf("no manifests in %s: run the demo from the top of the repository (%v)", samples, err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		expanded := os.Expand(string(text), func(name string) string { return keys[name] })
		if err := os.WriteFile(filepath.Join(d.config, filepath.Base(f)), []byte(expanded), 0o600); err != nil {
			return err
		}
	}
	return d.provider.WriteCA(filepath.Join(d.folder, "ca.pem"))
}

func (d *demo) startSidecar() error {
	d.title("Remora, with no cluster: the sidecar on the manifests of the mesh's own walkthrough")
	d.say("A made-up provider listens with TLS as " + qwen + " and " + moonshot + ", and asks each for its key.")
	d.say("The app is curl. It has no key and speaks plain HTTP; http_proxy leads it to the sidecar.")
	d.say("(In Kubernetes iptables does that, and nothing of the app changes.)")
	d.command("ls " + d.short(d.config))
	d.output(d.sh("ls " + d.config))
	args := []string{"proxy", "--config", d.config, "--trusted-ca", filepath.Join(d.folder, "ca.pem"), "--health", healthAddr}
	d.command(d.short("sidecar " + strings.Join(args, " ") + " &"))
	log, err := os.OpenFile(filepath.Join(d.folder, "sidecar.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	d.sidecar = exec.Command(d.binary, args...)
	d.sidecar.Stdout, d.sidecar.Stderr = log, log
	d.sidecar.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is the demo's, which then ends it
	if err := d.sidecar.Start(); err != nil {
		return fmt.Errorf("%w (make build makes it)", err)
	}
	go func() { d.exited <- d.sidecar.Wait() }()
	for deadline := time.Now().Add(10 * time.Second); ; {
		if resp, err := http.Get("http://" + healthAddr + "/readyz"); err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				break
			}
		}
		select {
		case err := <-d.exited:
			text, _ := os.ReadFile(log.Name())
			return fmt.Errorf("the sidecar ended: %w\n%s", err, text)
		case <-time.After(10 * time.Millisecond):
			if time.Now().After(deadline) {
				return fmt.Errorf("the sidecar is not ready; its log is in %s", log.Name())
			}
		}
	}
	d.output(d.sh("curl --silent http://" + healthAddr + "/readyz"))
	d.pause()
	return nil
}

func (d *demo) close() {
	if d.sidecar != nil && d.sidecar.Process != nil {
		_ = d.sidecar.Process.Signal(syscall.SIGTERM)
		select {
		case <-d.exited:
		case <-time.After(5 * time.Second):
			_ = d.sidecar.Process.Kill()
		}
	}
	d.provider.Close()
	_ = os.RemoveAll(d.folder)
}

// bash makes a command of the app: it goes through the sidecar.
func (d *demo) bash(script string) *exec.Cmd {
	cmd := exec.CommandContext(d.ctx, "bash", "-c", script)
	cmd.Env = append(os.Environ(), "http_proxy=http://"+proxyAddr, "no_proxy=127.0.0.1")
	return cmd
}

// sh runs a command and gives all that it prints.
func (d *demo) sh(script string) string {
	out, _ := d.bash(script).CombinedOutput() // what went wrong is in what is printed
	return strings.TrimRight(string(out), "\n")
}

// lines runs a command and calls f for each line as it comes.
func (d *demo) lines(script string, f func(string)) error {
	cmd := d.bash(script)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	for in := bufio.NewScanner(out); in.Scan(); {
		f(in.Text())
	}
	_, _ = io.Copy(io.Discard, out)
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%w: %s", err, stderr.String())
	}
	return nil
}
