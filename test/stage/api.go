package stage

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"maps"
	"text/template"
	"time"

	"remora.dev/remora/test/cluster/pki"
	"remora.dev/remora/test/llmserver"
)

// fourResources are those of the program that the gateway stands in for: as they are written there.
//
//go:embed gateway/*.yaml
var fourResources embed.FS

// Of the four resources, in the order in which a person applies them.
const (
	APIService         = "api-service.yaml"
	APIVirtualService  = "api-virtual-service.yaml"
	APIDestinationRule = "api-destination-rule.yaml"
	APIGateway         = "api-gateway.yaml"
)

// FourResources are their names.
var FourResources = []string{APIService, APIVirtualService, APIDestinationRule, APIGateway}

// FourResource is one of them.
func FourResource(name string) string {
	text, err := fourResources.ReadFile("gateway/" + name)
	if err != nil {
		panic(err) // it is in this program
	}
	return string(text)
}

// What the four resources are about.
const (
	APIHost  = "api.example.com"
	APILabel = "large-language-model-api" // value of the label app
)

// API is a Deployment of servers that say which of them has answered, in the header llmserver.NameHeader: plain HTTP at port 8080, TLS at port 8443,
// and their records at 8081. It has no Service: those are the tests'.
type API struct {
	Name     string
	Replicas int
	Labels   map[string]string // more than app: APILabel, such as version: v2
	Image    string            // default: ProviderImage
	Delay    time.Duration     // between two events of a stream
	// Authority signs the certificate of port 8443, for these names. Default: an authority that nobody knows.
	Authority *pki.Authority
	Names     []string
}

//go:embed api.yaml
var apiYAML string

var apiManifest = template.Must(template.New("api").Funcs(template.FuncMap{
	"json": func(v any) (string, error) { text, err := json.Marshal(v); return string(text), err },
}).Parse(apiYAML))

// Manifest is the YAML of the Deployment.
func (a API) Manifest() (string, error) {
	labels := map[string]string{"app": APILabel}
	maps.Copy(labels, a.Labels)
	if a.Image == "" {
		a.Image = ProviderImage
	}
	args := []string{"-name=$(POD)", "-told=none", "-plain=:8080", "-record=:8081", "-chunk-delay=" + a.Delay.String()}
	var pair pki.Pair
	if a.Authority != nil {
		var err error
		if pair, err = a.Authority.Server(a.Name, nil, a.Names...); err != nil {
			return "", err
		}
		args = append(args, "-tls=/tls")
	}
	var text bytes.Buffer
	err := apiManifest.Execute(&text, map[string]any{
		"Name": a.Name, "Replicas": a.Replicas, "Labels": labels, "Image": a.Image, "Args": append(args, ":8443", "*="),
		"Certificate": string(pair.Certificate), "Key": string(pair.Key),
	})
	return text.String(), err
}

// PodRequests are those that a pod of an API has received, as Provider.Requests tells.
func PodRequests(ctx context.Context, k Kubectl, namespace, pod string) ([]llmserver.Request, error) {
	out, err := said(k(ctx, "", "get", "--raw", fmt.Sprintf("/api/v1/namespaces/%s/pods/%s:8081/proxy/requests", namespace, pod)))
	if err != nil {
		return nil, err
	}
	var requests []llmserver.Request
	if err := json.Unmarshal([]byte(out), &requests); err != nil {
		return nil, fmt.Errorf("the record of %s: %w: %s", pod, err, out)
	}
	return requests, nil
}
