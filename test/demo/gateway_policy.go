//go:build linux

package main

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"remora.dev/remora/test/stage"
)

// comeAndGo scales the servers while calls run.
func (d *demo) comeAndGo() error {
	d.title("Pods come and go, and no call fails: 3, 5, 2")
	load := d.caller().Begin(d.ctx, 8, 5*time.Millisecond)
	defer load.Stop()
	for _, replicas := range []int{5, 2} {
		began := time.Now()
		if _, err := d.show(fmt.Sprintf("kubectl scale deployment/api --replicas=%d", replicas)); err != nil {
			return err
		}
		if err := d.spread(load, replicas); err != nil {
			return err
		}
		took := time.Since(began)
		load.Mark()
		if err := d.enough(load, replicas*100); err != nil {
			return err
		}
		t := load.Tally()
		if len(t.Shares) != replicas {
			return fmt.Errorf("%d pods answer, not %d", len(t.Shares), replicas)
		}
		d.bars(t.Shares)
		d.notice("%d pods share the calls, %.1f s after the command.", replicas, took.Seconds())
	}
	t := load.Stop()
	if len(t.Failed) > 0 {
		return fmt.Errorf("%d of %d calls failed, the first with %v", len(t.Failed), t.Calls, t.Failed[0])
	}
	d.notice("%d calls of 8 clients all the while, 0 failed.", t.Calls)
	d.pause()
	return d.quiet("scale", "deployment/api", "--replicas=3")
}

// spread waits until so many pods share the calls, and nobody else has any.
func (d *demo) spread(load *stage.Load, pods int) error {
	for deadline := time.Now().Add(2 * time.Minute); ; {
		load.Mark()
		if err := d.enough(load, pods*40); err != nil {
			return err
		}
		t := load.Tally()
		switch {
		case len(t.Failed) > 0:
			return fmt.Errorf("a call failed: %v", t.Failed[0])
		case len(t.Shares) == pods:
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("%d pods answer, not %d", len(t.Shares), pods)
		}
	}
}

// enough waits for so many answers.
func (d *demo) enough(load *stage.Load, answers int) error {
	return load.Until(d.ctx, func(t stage.Tally) bool { return t.Answered() >= answers || len(t.Failed) > 0 })
}

// policy is a way to choose servers, and how it shows.
type policy struct {
	says    string // trafficPolicy.loadBalancer
	change  func(n int, r *http.Request)
	calls   int
	clients int
	judge   func([]stage.Answer) (string, error)
}

const users = 40

var policyWalk = []policy{
	{`{"simple": "RANDOM"}`, nil, 600, 6, byChance},
	{`{"simple": "LEAST_REQUEST"}`, nil, 600, 6, byChance},
	{`{"consistentHash": {"httpHeaderName": "x-user"}}`, func(n int, r *http.Request) {
		r.Header.Set("x-user", fmt.Sprintf("user-%d", n%users))
	}, users * 10, 1, sticky},
	{`{"consistentHash": {"httpQueryParameterName": "session"}}`, func(n int, r *http.Request) {
		r.URL.RawQuery = fmt.Sprintf("session=%d", n%users)
	}, users * 10, 1, sticky},
	{`{"simple": "PASSTHROUGH"}`, nil, 600, 6, anyhow},
	{`{"simple": "ROUND_ROBIN"}`, nil, 600, 6, inTurn},
}

// policies changes the policy to each other one while calls run.
func (d *demo) policies() error {
	d.title("The policy changed to each other one, live")
	if err := d.quiet("rollout", "status", "deployment/api", "--timeout=2m"); err != nil {
		return err
	}
	load := d.caller().Begin(d.ctx, 2, 20*time.Millisecond)
	defer load.Stop()
	if err := d.spread(load, 3); err != nil {
		return err
	}
	for _, p := range policyWalk {
		if err := d.try(p); err != nil {
			return fmt.Errorf("%s: %w", p.says, err)
		}
	}
	before, err := d.generations()
	if err != nil {
		return err
	}
	if _, err := d.show("kubectl annotate destinationrule api-destination-rule remora.dev/load-balancer=LEAST_TOKENS"); err != nil {
		return err
	}
	if err := d.followed(before); err != nil {
		return err
	}
	shares, failed := stage.Shares(d.caller().Calls(d.ctx, 300, 4))
	if len(failed) > 0 {
		return fmt.Errorf("a call failed: %v", failed[0])
	}
	d.bars(shares)
	d.notice("LEAST_TOKENS, which Istio has not: of two servers drawn, the one with fewer tokens still to be read and written.")
	t := load.Stop()
	if len(t.Failed) > 0 {
		return fmt.Errorf("%d of %d calls failed, the first with %v", len(t.Failed), t.Calls, t.Failed[0])
	}
	d.notice("%d further calls ran all the while, 0 failed.", t.Calls)
	d.pause()
	return nil
}

func (d *demo) try(p policy) error {
	before, err := d.generations()
	if err != nil {
		return err
	}
	if _, err := d.show("kubectl patch destinationrule api-destination-rule --type=json --patch \\\n" +
		`  '[{"op": "replace", "path": "/spec/trafficPolicy/loadBalancer",` + "\n" + `     "value": ` + p.says + `}]'`); err != nil {
		return err
	}
	if err := d.followed(before); err != nil {
		return err
	}
	caller := d.caller()
	caller.Change = p.change
	answers := caller.Calls(d.ctx, p.calls, p.clients)
	shares, failed := stage.Shares(answers)
	if len(failed) > 0 {
		return fmt.Errorf("%d of %d calls failed, the first with %v", len(failed), p.calls, failed[0])
	}
	d.bars(shares)
	says, err := p.judge(answers)
	if err == nil {
		d.notice("%s", says)
	}
	return err
}

func byChance(answers []stage.Answer) (string, error) {
	shares, _ := stage.Shares(answers)
	low, high := stage.Between(len(answers), 1.0/3)
	for pod, n := range shares {
		if n < low || n > high {
			return "", fmt.Errorf("%s has %d, which chance does not explain", pod, n)
		}
	}
	if len(shares) != 3 {
		return "", fmt.Errorf("%d pods have answered, not 3", len(shares))
	}
	return fmt.Sprintf("By chance, each server could have had between %d and %d.", low, high), nil
}

func inTurn(answers []stage.Answer) (string, error) {
	shares, _ := stage.Shares(answers)
	least, most := len(answers), 0
	for _, n := range shares {
		least, most = min(least, n), max(most, n)
	}
	if len(shares) != 3 || most-least > 8 { // calls of the load lie between these
		return "", fmt.Errorf("that is not in turn: between %d and %d", least, most)
	}
	return "In turn again.", nil
}

func anyhow(answers []stage.Answer) (string, error) {
	return "The Service's own address was called: kube-proxy chose a server for each connection, and not for each call.", nil
}

// sticky looks whether each user, or session, has a server of its own.
func sticky(answers []stage.Answer) (string, error) {
	of := map[int]map[string]int{} // who has answered whom
	for n, a := range answers {
		if of[n%users] == nil {
			of[n%users] = map[string]int{}
		}
		of[n%users][a.Pod]++
	}
	by, elsewhere := map[string]int{}, 0
	for _, shares := range of {
		own, all := "", 0
		for pod, n := range shares {
			if all += n; own == "" || n > shares[own] {
				own = pod
			}
		}
		by[own]++
		elsewhere += all - shares[own]
	}
	// A server that has too many of the other calls at that moment is spared.
	if elsewhere*50 > len(answers) {
		return "", fmt.Errorf("%d of %d calls went to another server than the user's", elsewhere, len(answers))
	}
	if len(by) != 3 {
		return "", errors.New("a server has nobody")
	}
	var words []string
	for _, n := range by {
		words = append(words, fmt.Sprint(n))
	}
	return fmt.Sprintf("Each of %d has a server of its own, which took %d of %d calls; the servers have %s of them.",
		users, len(answers)-elsewhere, len(answers), strings.Join(words, ", ")), nil
}
