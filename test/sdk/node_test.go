package sdk_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"
)

func TestOpenAIForNodeSeesTheSameThroughTheSidecar(t *testing.T) {
	t.Parallel()
	compare(t, inNode("openai"))
}

func TestTheAISDKSeesTheSameThroughTheSidecar(t *testing.T) {
	t.Parallel()
	// It refuses to send no messages, and asks for usage in each stream.
	compare(t, inNode("ai", "chatWithoutMessages", "stream", "models", "files", shouldRetry))
}

func TestLangChainSeesTheSameThroughTheSidecar(t *testing.T) {
	t.Parallel()
	compare(t, inNode("langchain", "models", "files", "speech", "transcription", "streamedCompletion", shouldRetry))
}

// nodeBinary is the Node.js that npm has installed for these tests: what a machine has may be too old for the SDKs.
func nodeBinary() (string, error) {
	machine, ok := map[string]string{"amd64": "x64", "arm64": "arm64"}[runtime.GOARCH]
	if !ok {
		return "", fmt.Errorf("node/package.json names no Node.js for %s", runtime.GOARCH)
	}
	binary := "node/node_modules/node-linux-" + machine + "/bin/node"
	if _, err := os.Stat(binary); err != nil {
		return "", fmt.Errorf("the SDKs for Node.js are not installed: %w\nRemedy: (cd test/sdk/node && npm ci)", err)
	}
	return binary, nil
}

// inNode is the SDK of node/NAME.mjs, without what it cannot do.
func inNode(name string, lacks ...string) sdk {
	return sdk{name: name, lacks: lacks, run: func(w way, p plan) (map[string]experience, error) {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		defer cancel()
		node, err := nodeBinary()
		if err != nil {
			return nil, err
		}
		args := []string{node, "--no-warnings", "node/run.mjs", name}
		attributes := &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if w.world { // with the hosts file of an app there, in a mount namespace of its own
			args = append([]string{"sh", "-ec", `mount --bind "$0" /etc/hosts; exec "$@"`, hosts}, args...)
			attributes.Unshareflags = syscall.CLONE_NEWNS
		}
		run := exec.CommandContext(ctx, args[0], args[1:]...)
		run.SysProcAttr = attributes
		run.Env = []string{"PATH=" + os.Getenv("PATH")}
		if w.trusting {
			run.Env = append(run.Env, "NODE_EXTRA_CA_CERTS="+trusted)
		}
		input, err := json.Marshal(p)
		if err != nil {
			return nil, err
		}
		run.Stdin = bytes.NewReader(input)
		var complaints bytes.Buffer
		run.Stderr = &complaints
		output, err := run.Output()
		if err == nil && complaints.Len() > 0 {
			err = errors.New("it complained")
		}
		if err != nil {
			done := bytes.Count(output, []byte("\n"))
			return nil, fmt.Errorf("node run.mjs %s, after %d of %d calls: %w\n%.3000s", name, done, len(p.Calls), err, &complaints)
		}
		all := map[string]experience{}
		lines := bufio.NewScanner(bytes.NewReader(output))
		lines.Buffer(nil, len(output)+1)
		for lines.Scan() {
			line := struct {
				Name string
				experience
			}{}
			if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
				return nil, fmt.Errorf("node run.mjs %s printed %.300q: %w", name, lines.Text(), err)
			}
			all[line.Name] = line.experience
		}
		return all, lines.Err()
	}}
}
