//go:build linux

package main

import (
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"remora.dev/remora/test/stage"
)

// mine marks the namespaces of a demo, which the next one may remove.
const mine = "app.kubernetes.io/part-of=remora-demo"

// openCurrent uses the cluster that kubectl points at. It makes two namespaces, and installs Remora where it is not there; it
// changes nothing else, and of the user's own kubeconfig nothing at all.
func (d *demo) openCurrent() error {
	d.title("The cluster that kubectl points at")
	if _, err := exec.LookPath("kubectl"); err != nil {
		return fmt.Errorf("-cluster current needs kubectl: %w", err)
	}
	config, err := d.sh("kubectl config view --raw --minify --flatten")
	if err != nil {
		return fmt.Errorf("kubectl points at no cluster: %w", err)
	}
	if err := os.WriteFile(d.file("kubeconfig"), []byte(config), 0o600); err != nil {
		return err
	}
	d.env = append(d.env, "KUBECONFIG="+d.file("kubeconfig"))
	if err := d.quiet("config", "set-context", "--current", "--namespace="+home); err != nil {
		return err
	}
	if _, err := d.show("kubectl cluster-info | head --lines 1"); err != nil {
		return err
	}
	d.say("It gets two namespaces, %s and %s. No DNS is changed: the providers are called by the names of their Services.", home, abroad)
	for _, namespace := range []string{home, abroad} {
		if err := d.freeNamespace(namespace); err != nil {
			return err
		}
	}
	available, err := d.sh("kubectl --namespace " + system + " get deployment remora-webhook --output jsonpath='{.status.availableReplicas}'")
	switch {
	case err != nil:
		d.say("Remora is not there; it is installed now. Images are written to %s, for nodes that have to be handed them.", d.images())
	case available == "": // such as after a demo whose images nobody could pull
		d.say("Remora is there, but no pod of its webhook is available; it is applied again, with images from %s.", d.image("webhook"))
	default:
		d.notice("Remora is there already, and used as it is.")
		_, err := stage.WriteTools(d.ctx, ".", d.images()) // the nodes may have to be handed them
		return err
	}
	if _, err := stage.WriteImages(d.ctx, ".", d.images()); err != nil {
		return err
	}
	return d.install(d.options.registry, false)
}

// mark says whose a namespace is.
func (d *demo) mark(namespace string) error { return d.quiet("label", "namespace", namespace, mine) }

// freeNamespace removes a namespace that is an earlier demo's, and leaves anybody else's alone.
func (d *demo) freeNamespace(name string) error {
	found, err := d.sh("kubectl get namespace " + name + " --ignore-not-found --output name")
	if err != nil || found == "" {
		return err
	}
	ours, err := d.sh("kubectl get namespace --selector " + mine + " --output name")
	if err != nil {
		return err
	}
	if !strings.Contains(ours+"\n", "/"+name+"\n") {
		return fmt.Errorf("there is a namespace %s that is not the demo's: rename it, or remove it", name)
	}
	return d.quiet("delete", "namespace", name)
}

// adapted is a manifest for this cluster: as it is, or with names that resolve without a change of DNS, and with the authority
// to trust in the provider itself, because the installation's list is not the demo's to change.
func (d *demo) adapted(manifest string) string {
	if d.options.cluster == "" {
		return manifest
	}
	manifest = strings.NewReplacer("dashscope.aliyuncs.com", d.qwen, "api.moonshot.cn", d.moonshot).Replace(manifest)
	bundle := base64.StdEncoding.EncodeToString(d.authority.Certificate)
	var out strings.Builder
	provider := false
	for line := range strings.Lines(manifest) {
		out.WriteString(line)
		provider = provider && !strings.HasPrefix(line, "---") || strings.HasPrefix(line, "kind: LLMProvider")
		if provider && strings.HasPrefix(line, "  path: ") {
			out.WriteString("  tls:\n    caBundle: " + bundle + "\n")
		}
	}
	return out.String()
}
