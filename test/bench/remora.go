package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"remora.dev/remora/test/bench/pinned"
)

const remoraConfig = `apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMProvider
metadata:
  name: bench
  namespace: default
spec:
  host: %s
  port: %d
  trafficPolicy: {connectionPool: {tcp: {connectTimeout: 1m}}}
  configs:
    defaultConfig:
      openAIConfig:
        model: %s
        apiKey: %s
`

const remoraName = "remora"

// remora measures the sidecar at path, in file mode with one provider.
func remora(path string) contestant {
	return contestant{
		name: remoraName,
		find: func() (string, string, error) {
			binary, err := filepath.Abs(path)
			if err != nil {
				return "", "", err
			}
			said, err := exec.Command(binary, "version").Output()
			if err != nil {
				return "", "", fmt.Errorf("no sidecar there (`make build` makes it): %w", err)
			}
			return binary, strings.TrimSpace(string(said)) + ", one provider from a file", nil
		},
		command: func(binary string, at place) ([]string, error) {
			if err := os.Mkdir(at.remoraFolder(), 0o700); err != nil {
				return nil, err
			}
			draft, err := at.draftRemora(providerModel)
			if err != nil {
				return nil, err
			}
			if err := os.Rename(draft, at.remoraFile()); err != nil {
				return nil, err
			}
			admin, err := pinned.FreePort()
			if err != nil {
				return nil, err
			}
			return []string{binary, "proxy",
				"--config", at.remoraFolder(),
				"--listen", at.listenAddress(),
				"--admin", fmt.Sprintf("127.0.0.1:%d", admin),
				"--health", at.healthAddress(),
				"--trusted-ca", at.authorityFile,
			}, nil
		},
		caller:       unawareCaller,
		outputTokens: place.countedByRemora,
	}
}

func (p place) healthAddress() string { return "127.0.0.1:" + strconv.Itoa(p.healthPort) }

// countedByRemora adds up the output tokens that providers have reported, over all series.
func (p place) countedByRemora() (int, error) {
	status, metrics, err := fasthttp.GetTimeout(nil, "http://"+p.healthAddress()+"/metrics", 10*time.Second)
	if err != nil || status != fasthttp.StatusOK {
		return 0, fmt.Errorf("the sidecar's metrics: %d (%w)", status, err)
	}
	sum := 0
	for line := range strings.Lines(string(metrics)) {
		if strings.HasPrefix(line, "remora_tokens_total{") && strings.Contains(line, `type="output"`) && strings.Contains(line, `precision="exact"`) {
			count, err := strconv.Atoi(strings.TrimSpace(line[strings.LastIndexByte(line, ' ')+1:]))
			if err != nil {
				return 0, err
			}
			sum += count
		}
	}
	return sum, nil
}

func (p place) remoraFolder() string { return filepath.Join(p.folder, "remora") }

func (p place) remoraFile() string { return filepath.Join(p.remoraFolder(), "provider.yaml") }

// draftRemora writes a configuration beside the folder that the sidecar follows. A rename then puts
// it there, as a careful editor does: the change is whole from one instant on.
func (p place) draftRemora(model string) (string, error) {
	draft := filepath.Join(p.folder, "remora-draft.yaml")
	text := fmt.Sprintf(remoraConfig, providerHost, p.upstreamPort, model, providerKey)
	return draft, os.WriteFile(draft, []byte(text), 0o600)
}
