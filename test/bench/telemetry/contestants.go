package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"remora.dev/remora/test/bench/pinned"
)

// What is measured. The sidecar of users always counts. What it would be without is the same proxy in a program of this benchmark, that tells
// nobody of its requests (nothing), or only the metrics (counting): as that is close to the sidecar with only metrics, the first is what the sidecar
// would be with nothing.
const (
	nothing  = "nothing"
	counting = "counting"
	metered  = "metrics"
	logging  = "+ log"
	tracing  = "+ traces 1 %"
	telling  = "all"
)

var contestants = []struct{ name, what, telemetry string }{
	{nothing, "the proxy, told to nobody", ""},
	{counting, "the proxy, told to the metrics", ""},
	{metered, "bin/sidecar: metrics, no access log, no traces", "accessLog: {level: off}"},
	{logging, "bin/sidecar: metrics and a line for every request", "accessLog: {level: all}"},
	{tracing, "bin/sidecar: metrics and traces of 1 % of the requests", "accessLog: {level: off}\ntraces: {endpoint: COLLECTOR, sample: 0.01}"},
	{telling, "bin/sidecar: metrics, a line for every request, traces of 1 %", "accessLog: {level: all}\ntraces: {endpoint: COLLECTOR, sample: 0.01}"},
}

const provider = `apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMProvider
metadata: {name: bench, namespace: default}
spec:
  host: ` + host + `
  configs: {defaultConfig: {openAIConfig: {apiKey: ` + key + `}}}
`

const settings = `---
apiVersion: v1
kind: ConfigMap
metadata: {name: remora-telemetry, namespace: remora-system}
data:
  telemetry.yaml: |
    %s
`

// stage is where the contestants are.
type stage struct {
	folder    string
	core      int
	binary    string
	collector string
}

func (s *stage) ca() string { return filepath.Join(s.folder, "ca.pem") }

// running is a contestant that has answered its first request.
type running struct {
	*pinned.Process
	what            string
	address, health string // health is empty where it has none
}

func (s *stage) beginAll(ctx context.Context) (all []*running, err error) {
	for i := range contestants {
		r, err := s.begin(ctx, i)
		if err != nil {
			return all, err
		}
		all = append(all, r)
	}
	return all, nil
}

// begin starts a contestant and waits until it answers rightly.
func (s *stage) begin(ctx context.Context, i int) (*running, error) {
	c := contestants[i]
	config := filepath.Join(s.folder, fmt.Sprintf("config-%d", i))
	if err := os.Mkdir(config, 0o700); err != nil {
		return nil, err
	}
	text := provider
	if c.telemetry != "" {
		text += fmt.Sprintf(settings, replace(c.telemetry, s.collector))
	}
	if err := os.WriteFile(filepath.Join(config, "all.yaml"), []byte(text), 0o600); err != nil {
		return nil, err
	}
	var ports [3]int
	for j := range ports {
		var err error
		if ports[j], err = pinned.FreePort(); err != nil {
			return nil, err
		}
	}
	at := func(j int) string { return fmt.Sprintf("127.0.0.1:%d", ports[j]) }
	r := &running{what: c.what, address: at(0)}
	argv := []string{pinned.Self, "silent", filepath.Join(config, "all.yaml"), r.address, s.ca(), c.name}
	if c.telemetry != "" {
		binary, err := filepath.Abs(s.binary)
		if err != nil {
			return nil, err
		}
		if _, err := os.Stat(binary); err != nil {
			return nil, fmt.Errorf("no sidecar there (`make build` makes it): %w", err)
		}
		r.health = at(2)
		argv = []string{binary, "proxy", "--config", config, "--listen", r.address, "--admin", at(1), "--health", r.health, "--trusted-ca", s.ca()}
	}
	var err error
	if r.Process, err = pinned.Launch(c.name, s.core, argv); err != nil {
		return nil, err
	}
	go func() { _, _ = io.Copy(io.Discard, r.Out) }() // who reads the access log, which has no end but the process's
	if err := r.awaitAnswer(ctx); err != nil {
		err = r.Explain(err)
		r.Stop()
		return nil, err
	}
	return r, nil
}

func (r *running) awaitAnswer(ctx context.Context) error {
	limit := time.After(15 * time.Second)
	attempts := time.NewTicker(20 * time.Millisecond)
	defer attempts.Stop()
	for {
		l := openLoad(r.address)
		err := l.requests(ctx, request("m", ""), 1, 1)
		l.close()
		if err == nil {
			return nil
		}
		select {
		case <-r.Exited:
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-limit:
			return fmt.Errorf("no right answer within 15 s of its start: %w", err)
		case <-attempts.C:
		}
	}
}
