//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/test/stage"
)

// install applies config/default and awaits it. The registry, if any, is where the images are.
func (d *demo) install(registry string, again bool) error {
	d.title("Remora, installed as a user does it")
	began := time.Now()
	apply := "kubectl apply --server-side -k config/default"
	if registry != "" {
		apply = "kubectl kustomize config/default | sed 's#image: remora.dev/#image: " + registry + "/#' |\n  kubectl apply --server-side -f -"
	}
	d.command(apply)
	out, err := d.sh(apply)
	if err != nil {
		return err
	}
	d.output(fmt.Sprintf("(%d objects)", strings.Count(out, "serverside-applied")))
	if again { // the images may be others, of the same name
		if err := d.quiet("--namespace="+system, "rollout", "restart", "deployment"); err != nil {
			return err
		}
		for _, name := range []string{"remora-webhook", "remora-controller"} {
			if err := d.quiet("--namespace="+system, "rollout", "status", "deployment/"+name, "--timeout=2m"); err != nil {
				return err
			}
		}
	}
	if err := d.awaitPods(system, "remora-webhook", "remora-controller"); err != nil {
		return err
	}
	if _, err := d.show("kubectl --namespace " + system + " wait --for=condition=Available deployment --all --timeout=2m"); err != nil {
		return err
	}
	d.notice("Ready after %.0f s.", time.Since(began).Seconds())
	return nil
}

// raise has the providers run, before anybody needs them.
func (d *demo) raise() error {
	if err := d.quiet("create", "namespace", abroad); err != nil {
		return err
	}
	if err := d.mark(abroad); err != nil {
		return err
	}
	var manifests []string
	for _, p := range []stage.Provider{d.providers.qwen, d.providers.moonshot, d.providers.inhouse} {
		manifest, err := p.Manifest(d.authority)
		if err != nil {
			return err
		}
		manifests = append(manifests, manifest)
	}
	if out, err := d.kubectl(d.ctx, strings.Join(manifests, "---\n"), "apply", "-f", "-"); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	if err := d.awaitPods(abroad, "dashscope", "moonshot", "inhouse"); err != nil {
		return err
	}
	if d.cluster != nil {
		if err := d.resolve(); err != nil {
			return err
		}
	}
	return d.writeManifests()
}

// writeManifests puts the walkthrough's manifests into a folder, where a person can go on with them.
func (d *demo) writeManifests() error {
	files := map[string][]string{"1-sleep.yaml": {stage.Sleep()}, "2-dashscope-qwen.yaml": {stage.PlainProvider(keys["DASHSCOPE_API_KEY"])}}
	for name, samples := range map[string][]string{
		"3-vip-route.yaml": {"dashscope-route.yaml", "dashscope-qwen.yaml"}, "4-demo-llm-server.yaml": {"moonshot.yaml", "demo-llm-server.yaml"},
	} {
		for _, sample := range samples {
			text, err := stage.Sample(".", sample, keys)
			if err != nil {
				return err
			}
			files[name] = append(files[name], text)
		}
	}
	files["4-demo-llm-server.yaml"] = append([]string{stage.DemoService()}, files["4-demo-llm-server.yaml"]...)
	all := strings.Join(files["4-demo-llm-server.yaml"][2:], "")
	before, after, _ := strings.Cut(all, "weight: 50")
	files["5-all-to-moonshot.yaml"] = []string{before + "weight: 0" + strings.Replace(after, "weight: 50", "weight: 100", 1)}
	for name, texts := range files {
		if err := os.WriteFile(d.file(name), []byte(d.adapted(strings.Join(texts, "---\n"))), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// awaitPods returns when the Deployments of a namespace are available, and tells at once of an image that is not there.
func (d *demo) awaitPods(namespace string, deployments ...string) error {
	const patience, grace = 3 * time.Minute, 10 * time.Second // pods that are being replaced may lack an image
	var (
		waiting string
		lacking time.Time
	)
	for deadline := time.Now().Add(patience); ; {
		out, err := d.kubectl(d.ctx, "", "--namespace="+namespace, "get", "deployments", "-o",
			`jsonpath={range .items[*]}{.metadata.name}={.status.conditions[?(@.type=="Available")].status} {end}`)
		if err != nil {
			return fmt.Errorf("%w\n%s", err, out)
		}
		if !slices.ContainsFunc(deployments, func(name string) bool { return !strings.Contains(out, name+"=True") }) {
			return nil
		}
		waiting = strings.TrimSpace(out)
		switch err := d.missingImage(namespace); {
		case !errors.Is(err, errNoImage):
			lacking = time.Time{}
			if err != nil {
				return err
			}
		case lacking.IsZero():
			lacking = time.Now()
		case time.Since(lacking) > grace:
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not available within %s: %s", patience, waiting)
		}
		d.wait(200 * time.Millisecond)
		if d.ctx.Err() != nil {
			return d.ctx.Err()
		}
	}
}

// errNoImage says everything that there is to say.
var errNoImage = errors.New("the nodes cannot get the image")

// missingImage tells of an image that a pod of the namespace cannot have, and what to do.
func (d *demo) missingImage(namespace string) error {
	out, err := d.kubectl(d.ctx, "", "--namespace="+namespace, "get", "pods", "-o", "json")
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	type status struct {
		Image string
		State struct {
			Waiting struct{ Reason, Message string }
		}
	}
	var pods struct {
		Items []struct {
			Metadata struct{ Name string }
			Status   struct{ ContainerStatuses, InitContainerStatuses []status }
		}
	}
	if err := json.Unmarshal([]byte(out), &pods); err != nil {
		return err
	}
	for _, pod := range pods.Items {
		for _, c := range append(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses...) {
			if reason := c.State.Waiting.Reason; reason == "ImagePullBackOff" || reason == "ErrImageNeverPull" {
				return fmt.Errorf("%w %s, for pod %s of namespace %s: %s\n%s",
					errNoImage, c.Image, pod.Metadata.Name, namespace, c.State.Waiting.Message, d.remedy(c.Image))
			}
		}
	}
	return nil
}

func (d *demo) remedy(image string) string {
	if image == stage.AppImage {
		return "It is public: let the nodes reach it, or load " + d.images() + "/app.tar onto them, which has that name."
	}
	return fmt.Sprintf("Its archive is in %s. Load it onto the nodes (kind load image-archive, minikube image load, ctr -n k8s.io image import),\n"+
		"or push it to a registry of yours and say which: make demo CLUSTER=current REGISTRY=registry.example.com/remora", d.images())
}

// explained adds to an error what the cluster has to say, and where to look.
func (d *demo) explained(err error) error {
	if d.ctx.Err() != nil || errors.Is(err, errNoImage) {
		return err
	}
	var text strings.Builder
	namespaces := []string{system, abroad, home}
	if d.options.gateway {
		namespaces = []string{system, v1beta1.GatewayName, behind}
	}
	for _, namespace := range namespaces {
		pods, err := d.kubectl(d.ctx, "", "--namespace="+namespace, "get", "pods", "--no-headers")
		if err == nil {
			fmt.Fprintf(&text, "\n\nPods of %s:\n%s", namespace, pods)
		}
		events, err := d.kubectl(d.ctx, "", "--namespace="+namespace, "get", "events", "--field-selector=type=Warning,reason!=Unhealthy",
			"--no-headers", "--output=custom-columns=:.involvedObject.kind,:.involvedObject.name,:.message")
		if err == nil && strings.TrimSpace(events) != "" {
			fmt.Fprintf(&text, "Warnings:\n%s", events)
		}
	}
	if d.options.gateway {
		if log, err := d.kubectl(d.ctx, "", "--namespace="+v1beta1.GatewayName, "logs", "--selector=app="+v1beta1.GatewayName, "--tail=10"); err == nil {
			fmt.Fprintf(&text, "\nThe gateway says:\n%s", log)
		}
	}
	if d.cluster != nil && !d.options.end {
		fmt.Fprintf(&text, "\nThe cluster runs until `make demo-down`: export KUBECONFIG=%s", d.cluster.Kubeconfig())
	}
	return fmt.Errorf("%w%s", err, strings.TrimRight(text.String(), "\n"))
}
