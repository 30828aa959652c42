package stage

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/template"
	"time"

	"remora.dev/remora/test/cluster/pki"
	"remora.dev/remora/test/llmserver"
)

// Kubectl runs kubectl with something to read on its standard input and gives all that it prints: a cluster's KubectlWith.
type Kubectl func(ctx context.Context, stdin string, args ...string) (string, error)

// Provider is a fake provider that runs as a pod. A Service of its name has it at port 443, and in plain HTTP at port 80, so
// that what should have been encrypted is received, and seen. No sidecar is put beside it.
type Provider struct {
	Namespace string
	Name      string
	// Keys are the hosts that it is, each with the key that it demands, or "".
	Keys map[string]string
	// Image is that of the provider. Default: ProviderImage.
	Image string
	// ChunkDelay is the time between two events of a stream. Default: none.
	ChunkDelay time.Duration
}

//go:embed provider.yaml
var providerYAML string

var manifest = template.Must(template.New("provider").Funcs(template.FuncMap{
	"json": func(v any) (string, error) { text, err := json.Marshal(v); return string(text), err },
}).Parse(providerYAML))

// Manifest is the YAML of the provider: Secret, Deployment and Service. The authority is the one to trust.
func (p Provider) Manifest(authority *pki.Authority) (string, error) {
	hosts := slices.Sorted(maps.Keys(p.Keys))
	pair, err := authority.Server(p.Name, nil, hosts...)
	if err != nil {
		return "", err
	}
	if p.Image == "" {
		p.Image = ProviderImage
	}
	args := []string{"-tls=/tls", "-plain=:8080", "-record=:8081", "-chunk-delay=" + p.ChunkDelay.String(), ":8443"}
	for _, host := range hosts {
		args = append(args, host+"="+p.Keys[host])
	}
	var text bytes.Buffer
	err = manifest.Execute(&text, map[string]any{
		"Provider": p, "Args": args, "Certificate": string(pair.Certificate), "Key": string(pair.Key),
	})
	return text.String(), err
}

// record is where the API server leads to the provider's record.
func (p Provider) record(path string) string {
	return fmt.Sprintf("/api/v1/namespaces/%s/services/%s:record/proxy/%s", p.Namespace, p.Name, path)
}

// Address is that of its Service.
func (p Provider) Address(ctx context.Context, k Kubectl) (string, error) {
	return said(k(ctx, "", "-n", p.Namespace, "get", "service", p.Name, "-o", "jsonpath={.spec.clusterIP}"))
}

// Requests are all that it has received since its start, or since Forget, in the order in which they were complete.
func (p Provider) Requests(ctx context.Context, k Kubectl) ([]llmserver.Request, error) {
	out, err := said(k(ctx, "", "get", "--raw", p.record("requests")))
	if err != nil {
		return nil, err
	}
	var requests []llmserver.Request
	if err := json.Unmarshal([]byte(out), &requests); err != nil {
		return nil, fmt.Errorf("the record of %s: %w: %s", p.Name, err, out)
	}
	return requests, nil
}

// Forget empties its record.
func (p Provider) Forget(ctx context.Context, k Kubectl) error {
	_, err := said(k(ctx, "", "delete", "--raw", p.record("requests")))
	return err
}

// Script puts faults in line for the coming requests to a host of it, as llmserver's Script does.
func (p Provider) Script(ctx context.Context, k Kubectl, host string, faults ...llmserver.Fault) error {
	var lines []string
	for _, fault := range faults {
		lines = append(lines, fault.String())
	}
	_, err := said(k(ctx, strings.Join(lines, "\n"), "create", "--raw", p.record("faults?host="+host), "-f", "-"))
	return err
}

// Unscript forgets all faults that still wait.
func (p Provider) Unscript(ctx context.Context, k Kubectl) error {
	_, err := said(k(ctx, "", "delete", "--raw", p.record("faults")))
	return err
}

// said puts what a failed command printed into its error.
func said(out string, err error) (string, error) {
	if err != nil {
		err = fmt.Errorf("%w: %s", err, strings.TrimSpace(out))
	}
	return out, err
}
