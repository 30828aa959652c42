//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/test/cluster/crds"
	"remora.dev/remora/test/llmserver"
	"remora.dev/remora/test/stage"
)

// serve has the servers run, and writes what follows into files.
func (d *demo) serve() error {
	d.title("Three servers of a model, each in a pod")
	if err := d.quiet("create", "namespace", behind); err != nil {
		return err
	}
	if err := d.mark(behind); err != nil {
		return err
	}
	servers, err := stage.API{Name: "api", Replicas: 3}.Manifest()
	if err != nil {
		return err
	}
	kinds, err := crds.Manifest(d.ctx)
	if err != nil {
		return err
	}
	files := map[string]string{"api.yaml": servers, "istio-kinds.yaml": kinds}
	for _, name := range stage.FourResources {
		files[name] = stage.FourResource(name)
	}
	for name, text := range files {
		if err := os.WriteFile(d.file(name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	if _, err := d.show("kubectl apply -f " + d.file("api.yaml")); err != nil {
		return err
	}
	if err := d.awaitPods(behind, "api"); err != nil {
		return err
	}
	_, err = d.show("kubectl get pods --selector app=" + stage.APILabel)
	return err
}

// edge installs the gateway, and Istio's kinds after it.
func (d *demo) edge() error {
	d.title("The gateway, and the kinds that it executes")
	began := time.Now()
	d.command("kubectl apply --server-side -k config/gateway")
	out, err := d.sh("kubectl apply --server-side -k config/gateway")
	if err != nil {
		return err
	}
	d.output(fmt.Sprintf("(%d objects)", strings.Count(out, "serverside-applied")))
	if err := d.awaitPods(v1beta1.GatewayName, v1beta1.GatewayName); err != nil {
		return err
	}
	in := "kubectl --namespace " + v1beta1.GatewayName
	if _, err := d.show(in + " get deployments,horizontalpodautoscalers,poddisruptionbudgets"); err != nil {
		return err
	}
	d.notice("Ready after %.0f s: the sidecar's own program, as pods that serve the whole cluster.", time.Since(began).Seconds())
	if _, err := d.show("kubectl apply --server-side -f " + d.file("istio-kinds.yaml")); err != nil {
		return err
	}
	if err := d.quiet("wait", "--for=condition=Established", "--timeout=1m", "crd/"+crds.VirtualServices, "crd/"+crds.DestinationRules, "crd/"+crds.Gateways); err != nil {
		return err
	}
	d.say("No Istio runs here, only its kinds are known. Where a cloud gives a Service of type LoadBalancer its address, this does, with the node's:")
	if _, err := d.show(in + " patch service " + v1beta1.GatewayName + " \\\n  --subresource=status --type=merge \\\n" +
		`  --patch '{"status": {"loadBalancer": {"ingress": [{"ip": "` + d.cluster.Address() + `"}]}}}'`); err != nil {
		return err
	}
	_, err = d.show(in + " get service " + v1beta1.GatewayName)
	d.pause()
	return err
}

// four applies the four resources as they are.
func (d *demo) four() error {
	d.title("Four resources, unchanged")
	apply := "kubectl apply"
	for _, name := range stage.FourResources {
		if _, err := d.show("cat " + d.file(name)); err != nil {
			return err
		}
		apply += " \\\n  -f " + d.file(name)
	}
	before, err := d.generations()
	if err != nil {
		return err
	}
	if _, err := d.show(apply); err != nil {
		return err
	}
	if err := d.followed(before); err != nil {
		return err
	}
	if err := d.answering(); err != nil {
		return err
	}
	call := "curl --silent --show-error --include http://" + d.cluster.Address() + "/v1/chat/completions \\\n  --header 'Host: " + stage.APIHost + "' \\\n  --json '" + stage.Message + "'"
	out, err := d.show(call)
	if err != nil {
		return err
	}
	if !strings.HasPrefix(out, "HTTP/1.1 200") || !strings.Contains(strings.ToLower(out), strings.ToLower(llmserver.NameHeader)+": api-") {
		return errors.New("no server has answered")
	}
	d.notice("The server says in %s which pod it is.", llmserver.NameHeader)
	out, err = d.show("curl --silent --show-error --include http://" + d.cluster.Address() + "/v1/chat/completions \\\n  --header 'Host: other.example.com' --json '{}'")
	if err != nil {
		return err
	}
	if !strings.HasPrefix(out, "HTTP/1.1 404") {
		return errors.New("a host that no VirtualService has is to be answered 404")
	}
	d.notice("The Gateway's hosts are \"*\", but a host that no VirtualService has goes nowhere.")
	d.pause()
	return nil
}

// caller calls from outside of the cluster.
func (d *demo) caller() stage.Caller {
	return stage.Caller{Host: stage.APIHost, Dial: func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(d.cluster.Address(), "80"))
	}}
}

// answering waits until the first call is answered: kube-proxy and the gateway's listener follow on their own.
func (d *demo) answering() error {
	ctx, cancel := context.WithTimeout(d.ctx, time.Minute)
	defer cancel()
	var last stage.Answer
	for again := time.NewTicker(100 * time.Millisecond); ; {
		if last = d.caller().Call(ctx, 0); last.OK() {
			again.Stop()
			return nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return fmt.Errorf("no call is answered: %v", last)
		}
	}
}

// evenly shows the split.
func (d *demo) evenly() error {
	d.title("ROUND_ROBIN: evenly over the pods")
	gateways, err := d.generations()
	if err != nil {
		return err
	}
	const calls = 600
	shares, failed := stage.Shares(d.caller().Calls(d.ctx, calls, 6))
	if len(failed) > 0 {
		return fmt.Errorf("%d of %d calls failed, the first with %v", len(failed), calls, failed[0])
	}
	d.bars(shares)
	if len(shares) != 3 {
		return fmt.Errorf("%d pods have answered, not 3", len(shares))
	}
	for pod, n := range shares {
		if off := n - calls/3; max(off, -off) > len(gateways) {
			return fmt.Errorf("that is not even: %s has %d", pod, n)
		}
	}
	d.notice("%d calls of 6 clients through %d pods of the gateway, 0 failed. Each of those takes the servers in turn, so that the "+
		"numbers differ by no more than there are of them.", calls, len(gateways))
	d.pause()
	return nil
}

// bars shows who has answered how often.
func (d *demo) bars(shares map[string]int) {
	all := 0
	for _, n := range shares {
		all += n
	}
	for _, pod := range slices.Sorted(maps.Keys(shares)) {
		n := shares[pod]
		d.output(fmt.Sprintf("%5d  %-22s %s %.1f %%", n, pod, strings.Repeat("█", (n*45+all/2)/all), 100*float64(n)/float64(all)))
	}
}

// generation is what a gateway says of each configuration that it begins to use.
var generation = regexp.MustCompile(`"generation":"?([^",}]+)`)

// generations are the configurations that the pods of the gateway use, by pod.
func (d *demo) generations() (map[string]string, error) {
	in := "kubectl --namespace " + v1beta1.GatewayName
	pods, err := d.sh(in + " get pods --selector app=" + v1beta1.GatewayName + " --field-selector=status.phase=Running --output jsonpath='{.items[*].metadata.name}'")
	if err != nil {
		return nil, err
	}
	all := map[string]string{}
	for pod := range strings.FieldsSeq(pods) {
		log, err := d.sh(in + " logs " + pod)
		if err != nil {
			return nil, err
		}
		all[pod] = ""
		if found := generation.FindAllStringSubmatch(log, -1); len(found) > 0 {
			all[pod] = found[len(found)-1][1]
		}
	}
	if len(all) == 0 {
		return nil, errors.New("there is no pod of the gateway")
	}
	return all, nil
}

// followed waits until every pod of the gateway uses another configuration than before.
func (d *demo) followed(before map[string]string) error {
	for deadline := time.Now().Add(time.Minute); ; d.wait(100 * time.Millisecond) {
		now, err := d.generations()
		if err != nil {
			return err
		}
		behind := 0
		for pod, generation := range now {
			if generation == before[pod] {
				behind++
			}
		}
		switch {
		case behind == 0:
			return nil
		case d.ctx.Err() != nil:
			return d.ctx.Err()
		case time.Now().After(deadline):
			return errors.New("the gateway does not follow within a minute")
		}
	}
}
