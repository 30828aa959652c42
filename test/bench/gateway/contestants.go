package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"remora.dev/remora/test/bench/pinned"
)

// contestant is a program that balances.
type contestant struct {
	program string
	// find returns the program and a line about its version; an error if it is not here.
	find func() (binary, version string, err error)
	// command writes what the program wants to read and returns its command line.
	command func(binary string, p policy, at place) ([]string, error)
}

func contestants(sidecar string) []contestant {
	return []contestant{remora(sidecar), bare(), nginx(), haproxy()}
}

// place is where a contestant lives.
type place struct {
	folder  string
	port    uint16
	servers []netip.AddrPort
}

func (p place) address() string { return fmt.Sprintf("127.0.0.1:%d", p.port) }

// running is a contestant that has answered its first request.
type running struct {
	*pinned.Process
	program, version, address string
	policy                    policy
	wrong                     error // what it answered, and is measured no more for; of Remora and the yardstick, that ends the run
}

// drop notes that a contestant has answered wrongly.
func (r *running) drop(ctx context.Context, err error) error {
	err = r.Explain(err)
	if r.program == remoraName || r.program == yardstick || ctx.Err() != nil {
		return err
	}
	r.wrong = err
	return nil
}

// missing is a contestant that this machine cannot run, and why.
type missing struct {
	program string
	reason  error
}

// beginAll starts the contestants that are wanted and here, one process for each policy. Those it returns are to be stopped, also after
// an error.
func beginAll(ctx context.Context, o options, core int, folder string, servers []netip.AddrPort) (all []*running, absent []missing, err error) {
	for _, c := range contestants(o.sidecar) {
		if slices.Contains(o.without, c.program) {
			continue
		}
		binary, version, err := c.find()
		if err != nil {
			absent = append(absent, missing{c.program, err})
			continue
		}
		for _, p := range policies {
			port, err := pinned.FreePort()
			if err != nil {
				return all, absent, err
			}
			at := place{folder: filepath.Join(folder, c.program+"-"+string(p)), port: uint16(port), servers: servers}
			if err := os.Mkdir(at.folder, 0o700); err != nil {
				return all, absent, err
			}
			argv, err := c.command(binary, p, at)
			if err != nil {
				return all, absent, fmt.Errorf("%s: %w", c.program, err)
			}
			process, err := pinned.Launch(c.program, core, argv)
			if err != nil {
				return all, absent, err
			}
			r := &running{Process: process, program: c.program, version: version, address: at.address(), policy: p}
			all = append(all, r)
			if err := r.awaitAnswer(ctx); err != nil {
				return all, absent, r.Explain(err)
			}
		}
	}
	return all, absent, nil
}

func (r *running) awaitAnswer(ctx context.Context) error {
	limit := time.After(15 * time.Second)
	attempts := time.NewTicker(20 * time.Millisecond)
	defer attempts.Stop()
	for {
		l := openLoad(r.address, 0)
		_, err := l.requests(ctx, 1, 1)
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
