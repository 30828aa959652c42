package proxy

import (
	"strconv"
	"testing"
	"time"

	"remora.dev/remora/sidecar/routing"
)

func TestModelsThatRefuseToBeAskedAreRememberedForAWhileAndInBoundedNumber(t *testing.T) {
	p := &Proxy{}
	target := &routing.Target{Path: "/v1/chat/completions"}
	asks := func(model string) bool {
		c := &call{proxy: p, operation: &routing.Operation{AskUsage: true}, body: []byte(`{"stream":true,"model":"` + model + `"}`)}
		var f *failure
		if c.document, f = scan(c.body); f != nil {
			t.Fatal(f)
		}
		return c.asks(target)
	}
	of := refusal{path: target.Path, model: "a"}
	if !asks("a") {
		t.Error("nothing has been refused yet")
	}
	p.refusals.add(of, time.Now())
	if asks("a") || !asks("b") {
		t.Error("what one model has refused, only it is not asked again")
	}
	p.refusals.add(of, time.Now().Add(-refusalExpires-time.Second))
	if !asks("a") {
		t.Error("a refusal holds for ever")
	}
	for i := range 3 * maxRefusals {
		p.refusals.add(refusal{path: target.Path, model: strconv.Itoa(i)}, time.Now())
	}
	if n := len(p.refusals.until); n > maxRefusals {
		t.Errorf("%d are remembered", n)
	}
	if asks(strconv.Itoa(3*maxRefusals - 1)) {
		t.Error("the last one is forgotten")
	}
}
