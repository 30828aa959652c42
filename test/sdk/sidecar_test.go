package sdk_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	sidecarProxy  = "127.0.0.1:14001" // where redirected connections end, too
	sidecarNamed  = "127.0.0.1:80"    // where an app finds it that takes it for the provider
	sidecarHealth = "127.0.0.1:14021"
	sidecarUser   = 14001 // by which the redirection knows it
)

type sidecar struct{ *program }

func startSidecar(folder string) (*sidecar, error) {
	config := filepath.Join(folder, "config")
	if err := writeConfig(config); err != nil {
		return nil, err
	}
	command := exec.Command(filepath.Join(folder, "sidecar"), "proxy", "--config", config, "--trusted-ca", trusted,
		"--listen", sidecarProxy, "--listen", sidecarNamed, "--health", sidecarHealth)
	command.SysProcAttr = &syscall.SysProcAttr{
		Credential:  &syscall.Credential{Uid: sidecarUser, Gid: sidecarUser, NoSetGroups: true},
		AmbientCaps: []uintptr{unix.CAP_NET_BIND_SERVICE}, // for port 80
	}
	p, err := start("the sidecar", command)
	if err != nil {
		return nil, err
	}
	return &sidecar{p}, p.ready("http://" + sidecarHealth + "/readyz")
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
	keys := strings.NewReplacer("${DASHSCOPE_API_KEY}", qwenKey, "${MOONSHOT_API_KEY}", moonshotKey,
		"${LOCKED_API_KEY}", lockedKey, "${MOCKED_API_KEY}", mockedKey)
	for _, file := range append(files, "further.yaml") {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(folder, filepath.Base(file)), []byte(keys.Replace(string(text))), 0o600); err != nil {
			return err
		}
	}
	return filepath.WalkDir(folder, func(path string, _ os.DirEntry, err error) error {
		return errors.Join(err, os.Chown(path, sidecarUser, sidecarUser))
	})
}

// stop ends the sidecar as Kubernetes would. It has to end well, without a data race, and without having named a key.
func (s *sidecar) stop() error {
	if err := s.process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("the sidecar is gone: %w\n%s", err, &s.output)
	}
	select {
	case err := <-s.ended:
		if err != nil {
			return fmt.Errorf("the sidecar after SIGTERM: %w\n%s", err, &s.output)
		}
	case <-time.After(time.Minute):
		s.kill()
		return fmt.Errorf("the sidecar was still there a minute after SIGTERM\n%s", &s.output)
	}
	for _, bad := range []string{"DATA RACE", qwenKey, moonshotKey, lockedKey, mockedKey} {
		if strings.Contains(s.output.String(), bad) {
			return fmt.Errorf("the sidecar printed %s\n%s", bad, &s.output)
		}
	}
	return nil
}
