//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/test/llmserver"
	"remora.dev/remora/test/stage"
)

// ask is the walkthrough's own call, with further headers.
func (d *demo) ask(headers ...string) string {
	call := "kubectl exec deployment/sleep -it -- curl --location 'http://" + d.qwen + "' \\\n  --header 'Content-Type: application/json'"
	for _, h := range headers {
		call += " --header '" + h + "'"
	}
	return call + " \\\n  " + `--data '{"messages": [{"role": "user", "content": "请介绍你自己"}]}'`
}

// deploy labels the namespace and brings the app in, unchanged.
func (d *demo) deploy() error {
	d.title("A label on the namespace, and pods get a sidecar")
	if _, err := d.show("kubectl create namespace " + home); err != nil {
		return err
	}
	if err := errors.Join(d.mark(home), d.logged()); err != nil {
		return err
	}
	if _, err := d.show("kubectl label namespace " + home + " " + v1beta1.InjectLabel + "=" + v1beta1.InjectEnabled); err != nil {
		return err
	}
	began := time.Now()
	if _, err := d.show("kubectl apply -f " + d.file("1-sleep.yaml")); err != nil {
		return err
	}
	if err := d.awaitPods(home, "sleep"); err != nil {
		return err
	}
	took := time.Since(began)
	if _, err := d.show("kubectl get pods"); err != nil {
		return err
	}
	out, err := d.show("kubectl get pods --output jsonpath='{.items[*].spec.initContainers[*].name}'")
	if err != nil {
		return err
	}
	if out != v1beta1.RedirectContainer+" "+v1beta1.SidecarContainer {
		return fmt.Errorf("the pod has not got its redirection and its sidecar")
	}
	if err := d.asWritten(); err != nil {
		return err
	}
	d.notice("The manifest knows nothing of Remora. %s has sent the pod's port 80 to %s, which runs beside the app as a native sidecar. "+
		"The app's own container is as it was written. Running after %.1f s.", v1beta1.RedirectContainer, v1beta1.SidecarContainer, took.Seconds())
	d.pause()
	return nil
}

// asWritten compares the app's container with the Deployment's.
func (d *demo) asWritten() error {
	template, err := d.sh(`kubectl get deployment sleep --output jsonpath='{.spec.template.spec.containers}'`)
	if err != nil {
		return err
	}
	pod, err := d.sh(`kubectl get pods --selector app=sleep --output jsonpath='{.items[0].spec.containers}'`)
	if err != nil {
		return err
	}
	var written, runs []map[string]any
	if err := json.Unmarshal([]byte(template), &written); err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(pod), &runs); err != nil {
		return err
	}
	for _, c := range append(runs, written...) { // Kubernetes itself mounts the account's token
		mounts, _ := c["volumeMounts"].([]any)
		c["volumeMounts"] = nil
		for _, m := range mounts {
			if m, _ := m.(map[string]any); m["mountPath"] != "/var/run/secrets/kubernetes.io/serviceaccount" {
				c["volumeMounts"] = m["mountPath"]
			}
		}
	}
	a, _ := json.Marshal(written)
	b, _ := json.Marshal(runs)
	if string(a) != string(b) {
		return fmt.Errorf("the app's container is not as it was written:\n%s\n%s", a, b)
	}
	return nil
}

// answered runs the call and gives the model that answered. Of the answer it shows so much, or with 0 everything.
func (d *demo) answered(call string, shown int) (string, error) {
	d.command(call)
	out, err := d.typed(call)
	text := []rune(out)
	if shown > 0 && len(text) > shown && err == nil {
		d.output(string(text[:shown]) + " …")
	} else {
		d.output(out)
	}
	if err != nil {
		return "", err
	}
	var answer struct {
		Model   string
		Choices []struct{ Message struct{ Content string } }
	}
	if err := json.Unmarshal([]byte(out), &answer); err != nil || len(answer.Choices) == 0 {
		return "", fmt.Errorf("that is no answer of a model (%v)", err)
	}
	return answer.Model, nil
}

// received shows the last that a provider got, to the letter.
func (d *demo) received(p stage.Provider, show ...string) (llmserver.Request, error) {
	all, err := p.Requests(d.ctx, d.kubectl)
	if err != nil {
		return llmserver.Request{}, err
	}
	if len(all) == 0 {
		return llmserver.Request{}, fmt.Errorf("%s received nothing", p.Name)
	}
	q := all[len(all)-1]
	scheme := "http"
	if q.TLS {
		scheme = "https"
	}
	d.say("What the pod %s received:", p.Name)
	d.output(fmt.Sprintf("%s %s://%s%s", q.Method, scheme, q.Host, q.Path))
	for _, line := range q.RawHeader {
		name, _, _ := strings.Cut(line, ":")
		for _, s := range show {
			if strings.EqualFold(name, s) || s == "*" {
				d.output(line)
			}
		}
	}
	if len(q.Body) > 0 {
		d.output(string(q.Body))
	}
	return q, nil
}

func (d *demo) firstCall() error {
	d.title("A provider, and a plain call")
	if err := d.showFile("2-dashscope-qwen.yaml"); err != nil {
		return err
	}
	if _, err := d.show("kubectl apply -f " + d.file("2-dashscope-qwen.yaml")); err != nil {
		return err
	}
	model, err := d.answered(d.ask(), 0)
	if err != nil {
		return err
	}
	q, err := d.received(d.providers.qwen, "Authorization")
	if err != nil {
		return err
	}
	if model != "qwen-1.8b-chat" || !q.TLS || q.Path != "/compatible-mode/v1/chat/completions" ||
		q.Header.Get("Authorization") != "Bearer "+keys["DASHSCOPE_API_KEY"] {
		return fmt.Errorf("the provider got something else than the LLMProvider says")
	}
	d.notice("curl sent no path, no model and no key, in plain HTTP. Path, model, key and TLS are the LLMProvider's. " +
		"(The walkthrough has the key in the object itself; the warning says where it is better kept.)")
	d.pause()
	return nil
}

// showFile prints a manifest; one that was adapted has a certificate in it, of which the beginning will do.
func (d *demo) showFile(name string) error {
	command := "cat "
	if d.cluster == nil {
		command = "cut --characters=-90 "
	}
	_, err := d.show(command + d.file(name))
	return err
}

func (d *demo) subscriber() error {
	d.title("A header decides about the model")
	if _, err := d.show("kubectl apply -f " + d.file("3-vip-route.yaml")); err != nil {
		return err
	}
	for _, c := range []struct {
		headers []string
		want    string
	}{{[]string{"user-type: subscriber"}, "qwen-turbo"}, {nil, "qwen-1.8b-chat"}} {
		model, err := d.answered(d.ask(c.headers...), 190)
		if err != nil {
			return err
		}
		if model != c.want {
			return fmt.Errorf("the model is %s, not %s", model, c.want)
		}
	}
	d.notice("With the header the route's rule vip-route matched, and with it the provider's config of that name: qwen-turbo. " +
		"Without it, qwen-1.8b-chat as before.")
	d.pause()
	return nil
}

func (d *demo) split() error {
	d.title("A name of your own, split over two providers")
	if _, err := d.show("kubectl apply -f " + d.file("4-demo-llm-server.yaml")); err != nil {
		return err
	}
	if _, err := d.show("kubectl get pods --selector app=none"); err != nil {
		return err
	}
	const calls = 200
	script := fmt.Sprintf(`kubectl exec -i deployment/sleep -- sh <<'EOF' |
  for i in $(seq %d); do
    curl --silent http://%s \
      --data '{"messages": [{"role": "user", "content": "hi"}]}'
  done
EOF
  grep --only-matching '"model":"[^"]*"' | sort | uniq --count`, calls, virtual)
	d.command(script)
	out, err := d.sh(script)
	if err != nil {
		return err
	}
	total := 0
	for line := range strings.SplitSeq(out, "\n") {
		var n int
		var model string
		if _, err := fmt.Sscan(line, &n, &model); err != nil {
			return fmt.Errorf("not every call was answered: %q", line)
		}
		model = strings.Trim(strings.TrimPrefix(model, `"model":`), `"`)
		d.output(fmt.Sprintf("%4d  %-16s %s %.1f %%", n, model, strings.Repeat("█", n*60/calls), 100*float64(n)/calls))
		if n < calls*3/10 {
			return fmt.Errorf("that is no even split")
		}
		total += n
	}
	if total != calls {
		return fmt.Errorf("%d of %d calls were answered", total, calls)
	}
	d.notice("No pod is behind that Service: it only makes the name resolve. Each provider got half of the calls, with its own path, model and key.")
	d.pause()
	return nil
}
