package main

import (
	"context"
	"fmt"
	"iter"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"remora.dev/remora/test/bench/pinned"
)

// contestant is one reverse proxy to measure.
type contestant struct {
	name string
	// find returns the program and a line about its version; an error if it is not here.
	find func() (binary, version string, err error)
	// command writes what the program wants to read and returns its command line.
	command func(binary string, at place) ([]string, error)
	caller  caller
	// outputTokens asks it how many it has counted; nil where it counts none.
	outputTokens func(at place) (int, error)
}

// caller is how an application presents itself.
type caller struct {
	model, key string
}

var (
	configuredCaller = caller{providerModel, providerKey}
	unawareCaller    = caller{applicationModel, applicationKey}
)

func contestants(sidecar string) []contestant {
	return []contestant{remora(sidecar), bareFasthttp(), nginx(), haproxy(), nginxLua(), codingFasthttp(), httputilProxy()}
}

// place is where one contestant lives.
type place struct {
	folder        string
	authorityFile string
	upstreamPort  int
	listenPort    int
	healthPort    int // of a contestant that tells about itself
}

func (p place) listenAddress() string   { return "127.0.0.1:" + strconv.Itoa(p.listenPort) }
func (p place) upstreamAddress() string { return "127.0.0.1:" + strconv.Itoa(p.upstreamPort) }

// running is a contestant that has answered its first request.
type running struct {
	*pinned.Process
	place
	caller       caller
	version      string
	outputTokens func(at place) (int, error)
	wrong        error // what it answered, and is measured no more for; of Remora and the yardstick, that ends the run
}

// drop notes that a contestant has answered wrongly.
func (r *running) drop(ctx context.Context, err error) error {
	err = r.Explain(err)
	if r.Name == remoraName || r.Name == yardstick || ctx.Err() != nil {
		return err
	}
	r.wrong = err
	return nil
}

// right leaves out those that have answered wrongly.
func right(all []*running) iter.Seq[*running] {
	return func(yield func(*running) bool) {
		for _, r := range all {
			if r.wrong == nil && !yield(r) {
				return
			}
		}
	}
}

// missing is a contestant that this machine cannot run, and why.
type missing struct {
	name   string
	reason error
}

// begin starts a contestant on the core and waits until it answers rightly.
func begin(ctx context.Context, c contestant, binary, version string, core int, at place) (*running, error) {
	port, err := pinned.FreePort()
	if err != nil {
		return nil, err
	}
	at.listenPort = port
	if at.healthPort, err = pinned.FreePort(); err != nil {
		return nil, err
	}
	argv, err := c.command(binary, at)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.name, err)
	}
	process, err := pinned.Launch(c.name, core, argv)
	if err != nil {
		return nil, err
	}
	r := &running{Process: process, place: at, caller: c.caller, version: version, outputTokens: c.outputTokens}
	if err := r.awaitAnswer(ctx); err != nil {
		err = process.Explain(err)
		process.Stop()
		return nil, err
	}
	return r, nil
}

func (r *running) awaitAnswer(ctx context.Context) error {
	limit := time.After(15 * time.Second)
	attempts := time.NewTicker(20 * time.Millisecond)
	defer attempts.Stop()
	for {
		l := r.load()
		err := l.requests(ctx, prompts()["small"], 1, 1)
		l.close()
		if err == nil {
			return nil
		}
		select {
		case <-r.Exited:
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-limit:
			return fmt.Errorf("no right answer within 15 s of its start: %w", err)
		case <-attempts.C:
		}
	}
}

func (r *running) load() *load { return openLoad(r.listenAddress(), nil, r.caller) }

// libraryVersion is the version of a module that this program is built with.
func libraryVersion(path string) string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, module := range info.Deps {
		if module.Path == path {
			return strings.TrimPrefix(module.Version, "v")
		}
	}
	return ""
}
