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
	"testing"
	"time"
)

func TestTheNodeSDKSeesTheSameThroughTheSidecar(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("node/node_modules/openai/package.json"); err != nil {
		t.Fatalf("the SDK for Node is not installed: %v\nRemedy: (cd test/sdk/node && npm ci)", err)
	}
	compare(t, "node", func(w way, plan plan) (map[string]map[string]any, error) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		node := exec.CommandContext(ctx, "node", "--no-warnings", "node/saw.mjs")
		node.Env = []string{"PATH=" + os.Getenv("PATH")}
		if w.trusting {
			node.Env = append(node.Env, "NODE_EXTRA_CA_CERTS="+trusted)
		}
		input, err := json.Marshal(plan)
		if err != nil {
			return nil, err
		}
		node.Stdin = bytes.NewReader(input)
		var complaints bytes.Buffer
		node.Stderr = &complaints
		output, err := node.Output()
		if err == nil && complaints.Len() > 0 {
			err = errors.New("it complained")
		}
		if err != nil {
			done := bytes.Count(output, []byte("\n"))
			return nil, fmt.Errorf("node saw.mjs, after %d of %d calls: %w\n%s", done, len(plan.Calls), err, &complaints)
		}
		all := map[string]map[string]any{}
		lines := bufio.NewScanner(bytes.NewReader(output))
		lines.Buffer(nil, len(output)+1)
		for lines.Scan() {
			var line struct {
				Name string
				Saw  map[string]any
			}
			if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
				return nil, fmt.Errorf("node saw.mjs printed %q: %w", lines.Text(), err)
			}
			all[line.Name] = line.Saw
		}
		return all, lines.Err()
	})
}
