//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/test/cluster/assets"
	"remora.dev/remora/test/cluster/node"
	"remora.dev/remora/test/stage"
)

// openNode starts the cluster on this machine, or takes that of an earlier demo, and brings the images into it.
func (d *demo) openNode() error {
	d.title("A Kubernetes of one node, on this machine")
	if _, err := assets.Dir(d.ctx, os.Stdout, assets.Node...); err != nil {
		return err
	}
	began := time.Now()
	type written struct {
		archives stage.Archives
		err      error
	}
	images := make(chan written, 1)
	go func() {
		archives, err := stage.WriteImages(d.ctx, ".", d.images())
		images <- written{archives, err}
	}()
	reused, err := d.findOrStart()
	if err != nil {
		return err
	}
	d.env = append(d.env, "KUBECONFIG="+d.cluster.Kubeconfig(), "NO_PROXY=*",
		"PATH="+filepath.Dir(d.cluster.Binary("kubectl"))+":"+os.Getenv("PATH"))
	if reused {
		if err := d.forget(); err != nil {
			return err
		}
	}
	made := <-images
	if made.err != nil {
		return made.err
	}
	if err := d.cluster.Load(d.ctx, append(made.archives.Product, made.archives.Provider, made.archives.App)...); err != nil {
		return err
	}
	d.output(fmt.Sprintf("%5.1f s  images built and loaded", time.Since(began).Seconds()))
	// The walkthrough's commands name no namespace.
	current := home
	if d.options.gateway {
		current = behind
	}
	if err := d.quiet("config", "set-context", "--current", "--namespace="+current); err != nil {
		return err
	}
	return d.install("", reused)
}

func (d *demo) findOrStart() (reused bool, err error) {
	all, err := node.List()
	if err != nil {
		return false, err
	}
	i := slices.IndexFunc(all, func(s node.State) bool { return s.Name == d.options.name })
	if i >= 0 {
		if d.cluster, err = node.Find(d.options.name); err != nil {
			return false, err
		}
		if all[i].Running {
			d.say("That of an earlier demo runs. It is used again, with the images of now and new namespaces.")
			return true, nil
		}
		if err := d.cluster.Down(d.ctx); err != nil { // it has ended by itself
			return false, err
		}
	}
	d.cluster, err = node.Start(d.ctx, node.Options{Name: d.options.name, Detached: !d.options.end, Progress: indented{os.Stdout}})
	return false, err
}

// forget removes what an earlier demo has left.
func (d *demo) forget() error {
	return errors.Join(
		d.quiet("delete", "namespace", home, abroad, behind, v1beta1.GatewayName, "--ignore-not-found"),
		d.quiet("--namespace="+system, "delete", "configmap", "remora-trusted-ca", "remora-telemetry", "--ignore-not-found"),
	)
}

// trust makes the providers' authority one that every sidecar trusts.
func (d *demo) trust() error {
	if d.cluster == nil {
		return nil // the list is not the demo's to change: see adapted
	}
	d.title("The providers: two pods that stand for the world outside")
	d.say("%s and %s are pods here. They speak HTTPS only, demand their key, and are signed by an authority that was made "+
		"just now. Sidecars are to trust it beside the public ones:", d.qwen, d.moonshot)
	if err := os.WriteFile(d.file("ca.crt"), d.authority.Certificate, 0o644); err != nil {
		return err
	}
	_, err := d.show("kubectl --namespace " + system + " create configmap remora-trusted-ca --from-file=" + d.file("ca.crt"))
	return err
}

// resolve has the cluster's DNS know the providers by their real names.
func (d *demo) resolve() error {
	addresses := map[string]string{}
	for host, p := range map[string]stage.Provider{d.qwen: d.providers.qwen, d.moonshot: d.providers.moonshot} {
		address, err := p.Address(d.ctx, d.kubectl)
		if err != nil {
			return err
		}
		addresses[host] = address
	}
	if err := stage.Resolve(d.ctx, d.kubectl, addresses); err != nil {
		return err
	}
	d.notice("The cluster's DNS knows both names, and nothing of what follows leaves this machine.")
	return nil
}

func down(ctx context.Context, name string) error {
	n, err := node.Find(name)
	if errors.Is(err, node.ErrNone) {
		fmt.Println("No demo is running; nothing to do.")
		return nil
	}
	if err != nil {
		return err
	}
	if err := n.Down(ctx); err != nil {
		return err
	}
	fmt.Println("The demo's Kubernetes has ended. Nothing is left of it.")
	return nil
}

// indented sets in what is printed by the line.
type indented struct{ to io.Writer }

func (w indented) Write(text []byte) (int, error) {
	for line := range strings.Lines(string(text)) {
		if _, err := io.WriteString(w.to, "  "+line); err != nil {
			return 0, err
		}
	}
	return len(text), nil
}
