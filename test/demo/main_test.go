//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"remora.dev/remora/test/cluster/assets"
	"remora.dev/remora/test/cluster/node"
	"remora.dev/remora/test/netns"
)

func TestMain(m *testing.M) {
	if _, err := assets.Dir(context.Background(), os.Stderr, assets.Node...); err != nil { // inside, nothing can be downloaded
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	netns.Enter(nil)
	os.Exit(m.Run())
}

func TestTheDemoShowsWhatItSays(t *testing.T) {
	plays(t, "remora-demo-test", nil, "7. What the app sees", " 0 failed", "8. Who calls what", "$ kubectl remora top --once\n", `"code":"InvalidJSON"`,
		"kubectl remora explain request", "That was all", "export KUBECONFIG=")
}

func TestTheDemoOfTheGatewayShowsWhatItSays(t *testing.T) {
	plays(t, "remora-demo-gateway-test", []string{"-gateway"}, "5. The policy changed", "further calls ran all the while, 0 failed", "That was all")
}

// ofTop are lines of a table that is as wide as the name of its pod makes it.
var ofTop = regexp.MustCompile(`^  (POD  |total  |` + home + `/sleep-).* (NOW|\d+)\n$`)

// plays runs a demo to its end. The demo judges every step itself, and ends with an error where one is not as it says. Its cluster ends with it,
// however it ends.
func plays(t *testing.T, name string, args []string, says ...string) {
	t.Helper()
	folder, binary := t.TempDir(), filepath.Join(t.TempDir(), "demo")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "./test/demo")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	demo := exec.CommandContext(t.Context(), binary, append(args, "-end", "-name", name, "-folder", folder)...)
	demo.Dir = "../.."
	out, err := demo.CombinedOutput()
	text := strings.ReplaceAll(string(out), folder, "bin/demo")
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	for _, want := range says {
		if !strings.Contains(text, want) {
			t.Errorf("it does not say %q", want)
		}
	}
	if strings.Contains(text, "\x1b[") {
		t.Error("it colours what is not a terminal")
	}
	for line := range strings.Lines(text) {
		n := -1 // the line's end
		for _, r := range line {
			n += columns(r)
		}
		if n > width && !strings.Contains(line, "KUBECONFIG=") && !ofTop.MatchString(line) {
			t.Errorf("a line is %d columns wide: %s", n, line)
		}
	}
	if _, err := node.Find(name); err == nil {
		t.Error("its cluster is still there")
	}
	if t.Failed() {
		t.Log(text)
	}
}

func TestALineThatIsTooLongIsBrokenWhereItReadsWell(t *testing.T) {
	f := func(line string, want ...string) {
		t.Helper()
		if got := cut(line, 20); strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("%q became %q", line, got)
		}
	}
	f("short", "short")
	f("one two three four five six", "one two three four", "  five six")
	f(strings.Repeat("x", 25), strings.Repeat("x", 20), "  xxxxx")
	f("请介绍你自己请介绍你自己", "请介绍你自己请介绍你", "  自己")
	f(`{"a":1,"b":2,"c":3,"d":4}`, `{"a":1,"b":2,"c":3,`, `  "d":4}`)
}
