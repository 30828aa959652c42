package routing

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
)

// maxRetired bounds how many names of retired hosts a table has. Past it every host that nothing names is refused:
// memory must not grow for ever, and what is forgotten must not leave in plain text.
const maxRetired = 10_000

// Retaining gives the table as it is to follow before in a running process: the hosts of before that no object names any
// more are retired. They stay owned and are refused with HostRetired, since the apps that called them still may, and
// passed on, their prompts would leave in plain text. Not so the hosts whose every target was without TLS: the
// configuration has said that this is wanted. A host that is named again is served again. What was retired in before
// stays so; patterns (see Unreadable) are never served, and not retired. Neither table is changed.
func (t *Table) Retaining(before *Table) *Table {
	if before == t || before.compiled == t {
		return before
	}
	retired := map[string]*Host{}
	for name, h := range before.retired {
		if t.hosts[name] == nil {
			retired[name] = h
		}
	}
	made := map[*Host]*Host{}
	for name, h := range before.hosts {
		if t.hosts[name] != nil || h.plain() {
			continue
		}
		if made[h] == nil {
			made[h] = retire(h.Name)
		}
		retired[name] = made[h]
	}
	rest := before.rest
	if len(retired) > maxRetired {
		rest = retireAll()
	}
	if rest != nil {
		clear(retired) // it stands for all of them
	} else if len(retired) == 0 {
		return t
	}
	after := *t
	after.compiled, after.retired, after.rest = t, retired, rest
	sum := sha256.New()
	fmt.Fprintln(sum, t.generation, rest != nil)
	for _, name := range slices.Sorted(maps.Keys(retired)) {
		fmt.Fprintln(sum, name)
	}
	after.generation = hex.EncodeToString(sum.Sum(nil)[:6])
	return &after
}

func retire(name string) *Host {
	return &Host{Name: name, Refusal: &Refusal{HostRetired, fmt.Sprintf(
		"no LLMProvider or LLMRoute names %s any more: apply one; pods that start from now on may pass calls to it on in plain text", name)}}
}

func retireAll() *Host {
	return &Host{Name: everyHost, Refusal: &Refusal{HostRetired, fmt.Sprintf(
		"more than %d names that had an LLMProvider or LLMRoute have none any more, too many to remember, so no host without one is passed on: apply one, or restart the pod", maxRetired)}}
}

// everyHost is what the host is called that stands for all that nothing names.
const everyHost = "*"

// Retired gives what Retiring takes: the names of each retired host, its own first, in an order that is always the same.
func (t *Table) Retired() [][]string {
	if t.rest != nil {
		return [][]string{{everyHost}}
	}
	at := map[*Host]int{}
	var all [][]string
	for _, name := range slices.Sorted(maps.Keys(t.retired)) {
		h := t.retired[name]
		i, known := at[h]
		if !known {
			i, at[h] = len(all), len(all)
			all = append(all, []string{h.Name})
		}
		if name != h.Name {
			all[i] = append(all[i], name)
		}
	}
	return all
}

// Retiring gives the table as it is to follow, in another process, one that had these retired hosts. The table is not changed.
func (t *Table) Retiring(hosts [][]string) *Table {
	before := &Table{retired: map[string]*Host{}}
	for _, names := range hosts {
		if len(names) == 0 {
			continue
		}
		if names[0] == everyHost {
			before.rest = retireAll()
			continue
		}
		h := retire(names[0])
		for _, name := range names {
			before.retired[name] = h
		}
	}
	return t.Retaining(before)
}

// plain tells whether every call to the host leaves without TLS. What is refused might have left with it.
func (h *Host) plain() bool {
	targets := 0
	for _, r := range h.Rules {
		for _, l := range r.Levels {
			for _, b := range l.Backends {
				if b.Target == nil || b.Target.Endpoint.Value().TLS {
					return false
				}
				targets++
			}
		}
	}
	return targets > 0
}
