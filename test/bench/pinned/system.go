package pinned

import (
	"bytes"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
)

// FreePort is a TCP port of loopback that nobody listens on.
func FreePort() (int, error) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port, nil
}

// Installed finds a program of the system and the first line it prints about its version.
func Installed(name, versionFlag string) (binary, version string, err error) {
	binary, err = exec.LookPath(name)
	if err != nil {
		// Debian keeps daemons where an ordinary user's PATH does not look.
		binary, err = exec.LookPath(filepath.Join("/usr/sbin", name))
	}
	if err != nil {
		return "", "", fmt.Errorf("not installed (`.ci/prerequisites bench` installs it)")
	}
	said, err := exec.Command(binary, versionFlag).CombinedOutput()
	if err != nil {
		return "", "", fmt.Errorf("%s %s: %w", binary, versionFlag, err)
	}
	line, _, _ := bytes.Cut(said, []byte{'\n'})
	return binary, string(line), nil
}
