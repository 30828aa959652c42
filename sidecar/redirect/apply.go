//go:build linux

package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"

	"remora.dev/remora/sidecar/redirect/plan"
)

// A backEnd is one of the two sets of tables in which the kernel may hold iptables rules, by the name that its programs carry.
type backEnd string

const (
	nft    backEnd = "nft"
	legacy backEnd = "legacy"
)

// written is where the rules of a family are, and what becomes of connections that were not redirected.
type written struct {
	by     backEnd
	answer plan.Answer
}

// apply writes the rules of one family, each table in one transaction, and tells where. Rules that are there already decide
// which back end is tried first, so that ours come before them; else it is nft, which needs fewer rights. Whether a back end
// works at all shows by writing the rules themselves: what one wrote that then failed is taken back.
func apply(ctx context.Context, wish plan.Wish, f plan.Family, able abilities, log io.Writer) (written, error) {
	lock()
	order := []backEnd{nft, legacy}
	weight := map[backEnd]int{}
	for _, b := range order {
		// Without naming a table: legacy would make one that is not there. A back end that cannot even be read holds nothing.
		saved, _ := b.run(ctx, f, "save", "")
		weight[b] = plan.Weight(saved)
	}
	slices.SortStableFunc(order, func(a, b backEnd) int { return cmp.Compare(weight[b], weight[a]) })
	var refused []refusal
	for _, b := range order {
		var err error
		for _, wish.Answer = range []plan.Answer{plan.Reject, plan.Drop} {
			var script string
			if script, err = b.write(ctx, wish, f); err == nil {
				fmt.Fprintf(log, "# %s --noflush, done:\n%s\n", b.program(f, "restore"), script)
				return written{b, wish.Answer}, nil
			}
		}
		refused = append(refused, refusal{b, err})
	}
	return written{}, explain(ctx, f, refused, able)
}

func (b backEnd) write(ctx context.Context, wish plan.Wish, f plan.Family) (string, error) {
	before, err := b.tables(ctx, f)
	if err != nil {
		return "", err
	}
	script := wish.Script(f, before)
	err = b.restore(ctx, f, script)
	now, savedErr := b.tables(ctx, f)
	if err == nil {
		err = savedErr
	}
	if err == nil {
		if err = wish.Verify(f, now); err != nil {
			err = fmt.Errorf("the rules were accepted but are not there: %w", err)
		}
	}
	if err == nil {
		return script, nil
	}
	if withdrawal := plan.Withdrawal(before, now); withdrawal != "" {
		err = errors.Join(err, b.restore(ctx, f, withdrawal))
	}
	return "", err
}

// tables are those that we write to, as they are now.
func (b backEnd) tables(ctx context.Context, f plan.Family) (string, error) {
	var all strings.Builder
	for _, table := range plan.Tables {
		saved, err := b.run(ctx, f, "save", "", "-t", table)
		if err != nil {
			return "", err
		}
		all.WriteString(saved)
	}
	return all.String(), nil
}

func (b backEnd) restore(ctx context.Context, f plan.Family, script string) error {
	_, err := b.run(ctx, f, "restore", script, "--noflush", "-w", "10")
	return err
}

func (b backEnd) program(f plan.Family, action string) string {
	name := "iptables"
	if f == plan.IPv6 {
		name = "ip6tables"
	}
	return name + "-" + string(b) + "-" + action
}

// run gives what the program printed. Its error has what the program complained of.
func (b backEnd) run(ctx context.Context, f plan.Family, action, stdin string, args ...string) (string, error) {
	name := b.program(f, action)
	cmd := exec.CommandContext(ctx, name, args...)
	var out, complaint bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &complaint
	err := cmd.Run()
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return "", fmt.Errorf("%w; it comes with the image remora.dev/redirect, and in Debian with iptables", err)
	case ctx.Err() != nil:
		return "", fmt.Errorf("%s did not end in time: %w", name, ctx.Err())
	case err != nil:
		return "", fmt.Errorf("%s: %w: %s", name, err, essence(complaint.String()))
	}
	return out.String(), nil
}

// essence leaves out of a complaint what helps nobody: that there is a help, and what the other back end holds.
func essence(complaint string) string {
	var all []string
	for line := range strings.Lines(complaint) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "Try `") && !strings.HasPrefix(line, "# Warning:") {
			all = append(all, line)
		}
	}
	return strings.Join(all, "; ")
}

// lock finds legacy a place for the file by which its programs take turns: where the root is read-only, /run is no such place.
func lock() {
	const variable = "XTABLES_LOCKFILE"
	if os.Getenv(variable) != "" {
		return
	}
	for _, file := range []string{"/run/xtables.lock", "/dev/shm/xtables.lock"} {
		// As legacy does it. Where neither can be made, legacy says so if it is needed.
		if opened, err := os.OpenFile(file, os.O_RDONLY|os.O_CREATE, 0o600); err == nil {
			_ = opened.Close()
			_ = os.Setenv(variable, file)
			return
		}
	}
}
