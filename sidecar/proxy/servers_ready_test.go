package proxy_test

import (
	"strings"
	"testing"

	"remora.dev/remora/sidecar/routing"
)

const shown = `remora_servers{servers="Service default/api-service port http"}`

// shows tells whether the metrics say anything of how many servers there are.
func (f *fleet) shows() bool {
	var b strings.Builder
	f.metrics.Write(&b)
	return strings.Contains(b.String(), shown)
}

// Who is to be woken need not wait until the last servers are given up, nor until somebody calls.
func TestTheMetricsSayAtOnceThatNoServerIsReady(t *testing.T) {
	f := newFleet(t, 2, routing.Balance{}, "")
	f.call()
	if got := f.gauge(shown); got != 2 {
		t.Fatalf("the metrics know %d servers", got)
	}
	f.members.Publish(pods, routing.Servers{})
	if got := f.gauge(shown); got != 0 {
		t.Errorf("the metrics know %d servers where none is ready", got)
	}
	if got := f.call(); got.status != 200 {
		t.Errorf("those that were there last are called no more: %d %s", got.status, got.body)
	}
	if got := f.gauge(shown); got != 0 {
		t.Errorf("the metrics know %d servers that are none any more", got)
	}
	f.publish()
	f.renewed(2)
}

// A Service of which nobody knows who its servers are is not one without servers.
func TestTheMetricsSayNothingOfServersThatAreNotKnown(t *testing.T) {
	f := newFleet(t, 0, routing.Balance{}, "")
	f.call()
	if f.shows() {
		t.Errorf("the metrics know %d servers", f.gauge(shown))
	}
	f.members.Publish(pods, routing.Servers{})
	f.renewed(0)
}

func TestTheServicesOwnAddressIsCalledAgainOnceItsServersAreNotKnownAnyMore(t *testing.T) {
	f := newFleet(t, 2, routing.Balance{}, "")
	f.call()
	f.counts()
	f.members.Withdraw(pods)
	f.provider.Reset()
	for f.shows() { // for a moment, a group keeps to what it has just been told
		f.call()
	}
	f.counts()
	f.call()
	if n := f.counts(); f.last().Host != vllm || n[0]+n[1] > 0 {
		t.Errorf("%s was called, and the servers %v times", f.last().Host, n)
	}
	f.publish()
	f.renewed(2)
	f.call()
	if n := f.counts(); n[0]+n[1] != 1 {
		t.Errorf("the servers got %v of one call", n)
	}
}
