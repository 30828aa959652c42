package sdk_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// world is where an app behind the redirection believes every provider to be. There is a way to it, as there is from a
// pod, and nobody at its end: what arrives anywhere has been redirected.
const world = "192.0.2.80"

// redirect does for this namespace what the init container does for a pod. It gives the hosts file of an app there.
func redirect(folder string) (string, error) {
	for _, line := range []string{
		"link add eth0 type veth peer name far", "link set far up", "addr add 10.9.0.2/24 dev eth0", "link set eth0 up", "route add default via 10.9.0.1 dev eth0",
	} {
		if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			return "", fmt.Errorf("ip %s: %w\n%s", line, err, out)
		}
	}
	if out, err := exec.Command(filepath.Join(folder, "redirect")).CombinedOutput(); err != nil {
		return "", fmt.Errorf("redirect: %w\n%s", err, out)
	}
	lines := []string{"127.0.0.1 localhost"}
	for host := range providers {
		lines = append(lines, world+" "+host)
	}
	file := filepath.Join(folder, "hosts")
	return file, os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o644)
}
