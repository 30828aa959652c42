package integration

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/test/llmserver"
)

// Half of ten thousand objects are providers and half are routes to them, all in one namespace, so that each is judged among
// all the others. Most are there before, as at an upgrade; the last come through the webhook, to a sidecar that
// follows.
func TestTenThousandObjectsConvergeEverywhere(t *testing.T) {
	t.Parallel()
	const half, before = 5000, 4960
	n, p := newTenant(t, installed), newProvider(t, llmserver.Options{})
	client, err := rest.HTTPClientFor(n.Config())
	if err != nil {
		t.Fatal(err)
	}
	c := crowd{n, client, p}
	n.apply(t, providerOf(t, p, "one", dashscope, "qwen-turbo")+providerOf(t, p, "two", moonshot, "moonshot-v1-8k")+routeOf("chat", "chat", 1, 0))
	n.unjudged(t, func() { c.create(t, 0, before) })
	s := n.sidecar(t, p)
	apps := s.call(t, 1, "chat")
	c.create(t, before, half)

	s.awaitConfig(t, "of LLMRoute "+n.namespace+"/route-4999\n")
	late := n.sidecar(t, p)
	if now, followed := late.generation(t), s.generation(t); now != followed {
		t.Errorf("a new sidecar has %s, the one that followed %s", now, followed)
	}
	n.moves(t, moonshot, s, late)
	apps.noneFailed(t)
	out, err := n.tryApply(t, providerOf(t, p, "rival", "llm-17.example.com", "m"))
	if err == nil || !strings.Contains(out, "provider-17") {
		t.Errorf("the webhook does not know all: %v\n%s", err, out)
	}
	for _, resource := range []string{"llmproviders", "llmroutes"} {
		c.awaitStatus(t, resource, half)
	}
}

// crowd is many objects of a namespace.
type crowd struct {
	*tenant
	client    *http.Client
	providers *llmserver.Server
}

// unjudged takes the webhook's eye off the namespace while something is done.
func (n *tenant) unjudged(t *testing.T, do func()) {
	t.Helper()
	var remove, restore []string
	for i := range 4 { // entries
		at := fmt.Sprintf("/webhooks/%d/namespaceSelector", i)
		remove = append(remove, fmt.Sprintf(`{"op":"replace","path":%q,"value":{"matchExpressions":[{"key":"kubernetes.io/metadata.name","operator":"NotIn","values":[%q]}]}}`, at, n.namespace))
		restore = append(restore, fmt.Sprintf(`{"op":"replace","path":%q,"value":{}}`, at))
	}
	patch := func(operations []string) {
		t.Helper()
		n.kubectl(t, "patch", "validatingwebhookconfiguration", v1beta1.WebhookName, "--type=json", "-p", "["+strings.Join(operations, ",")+"]")
	}
	taken := providerOf(t, newProvider(t, llmserver.Options{}), "taken", dashscope, "m")
	patch(remove)
	await(t, "the webhook not to be asked", func() (string, bool) {
		out, err := n.tryApply(t, taken, "--dry-run=server")
		return out, err == nil
	})
	do()
	patch(restore)
	await(t, "the webhook to be asked again", func() (string, bool) {
		out, err := n.tryApply(t, taken, "--dry-run=server")
		return out, err != nil
	})
}

// create makes pairs of a provider and a route to it, many at a time.
func (c *crowd) create(t *testing.T, from, to int) {
	t.Helper()
	began := time.Now()
	numbers := make(chan int)
	var creators sync.WaitGroup
	for range 16 {
		creators.Go(func() {
			for i := range numbers {
				host := fmt.Sprintf("llm-%d.example.com", i)
				provider := providerOf(t, c.providers, fmt.Sprintf("provider-%d", i), host, "m")
				route := strings.ReplaceAll(routeOf(fmt.Sprintf("route-%d", i), fmt.Sprintf("route-%d", i), 1, 1), dashscope, host)
				if err := errors.Join(c.post(t, "llmproviders", provider), c.post(t, "llmroutes", route)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := from; i < to; i++ {
		numbers <- i
	}
	close(numbers)
	creators.Wait()
	t.Logf("%d objects created within %s", 2*(to-from), time.Since(began))
}

func (c *crowd) url(resource string) string {
	return c.URL() + "/apis/" + v1beta1.GroupVersion.String() + "/namespaces/" + c.namespace + "/" + resource
}

func (c *crowd) post(t *testing.T, resource, manifest string) error {
	t.Helper()
	object, err := yaml.YAMLToJSON([]byte(strings.TrimSuffix(manifest, "---\n")))
	if err != nil {
		return err
	}
	text, status, err := c.do(t, http.MethodPost, c.url(resource), object)
	if err == nil && status != http.StatusCreated {
		err = fmt.Errorf("%d: %s", status, text)
	}
	return err
}

func (c *crowd) do(t *testing.T, method, url string, body []byte) ([]byte, int, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		return nil, 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.client.Do(req)
	if err != nil {
		return nil, 0, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return text, resp.StatusCode, err
}

// awaitStatus waits until all objects are said to be accepted and complete.
func (c *crowd) awaitStatus(t *testing.T, resource string, atLeast int) {
	t.Helper()
	began := time.Now()
	awaitFor(t, 2*time.Minute, "the status of all "+resource, func() (string, bool) {
		text, _, err := c.do(t, http.MethodGet, c.url(resource)+"?resourceVersion=0", nil)
		accepted := bytes.Count(text, []byte(`"status":"True","type":"Accepted"`))
		resolved := bytes.Count(text, []byte(`"status":"True","type":"ResolvedRefs"`))
		return fmt.Sprint(accepted, " accepted, ", resolved, " resolved ", err), accepted > atLeast && resolved > atLeast
	})
	t.Logf("status of all %s %s later", resource, time.Since(began))
}
