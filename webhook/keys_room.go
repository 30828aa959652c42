package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/routing"
)

// claim is what one provider asks of a keys Secret.
type claim struct {
	uid      types.UID
	name     string
	exported bool
	kind     string // empty: it is a provider
	entries  []string
}

// leftOut is a provider that a keys Secret has no room for.
type leftOut struct {
	name     string
	kind     string // empty: it is a provider
	exported bool
	needs    int // bytes, beside what others have there already
	room     int // bytes that those before it leave
}

// maxKeys is how much a keys Secret holds, in bytes as entrySize counts.
const maxKeys = corev1.MaxSecretSize

// entrySize is what an entry takes: the API server counts values only, and the database what it stores, with each name twice.
func entrySize(entry string, value int) int { return value + 2*len(entry) + 16 }

// share is which entries a keys Secret has, and for which providers there is no room.
type share struct {
	entries map[string]bool
	left    map[types.UID]leftOut
}

// divide gives the claims, in their order, the room there is. What does not fit is left out whole, claim by claim: which part of a
// provider should not work is nobody's to guess. sizes has the values that there are. Exported providers have a little
// in any case, sizes of withheld, so that their hosts stay owned.
func divide(claims []claim, sizes, withheld map[string]int, room int) share {
	s := share{entries: map[string]bool{}, left: map[types.UID]leftOut{}}
	for entry, size := range withheld {
		room -= entrySize(entry, size)
	}
	for _, c := range claims {
		if len(c.entries) == 0 {
			continue
		}
		needs := 0
		for _, entry := range c.entries {
			size, ok := sizes[entry]
			if !ok {
				continue
			}
			if !s.entries[entry] {
				needs += entrySize(entry, size)
			}
		}
		if size, ok := withheld[c.entries[0]]; ok && c.exported {
			needs -= entrySize(c.entries[0], size)
		}
		if needs > 0 && needs > room {
			s.left[c.uid] = leftOut{c.name, c.kind, c.exported, needs, max(room, 0)}
			continue
		}
		room -= needs
		for _, entry := range c.entries {
			if _, ok := sizes[entry]; ok {
				s.entries[entry] = true
			}
		}
	}
	return s
}

// maxTold is how many providers without room a namespace is told of by name.
const maxTold = 10

// troubles tells a namespace of the providers that are left out.
func (s *share) troubles() (all []trouble) {
	byName := func(a, b leftOut) int { return cmp.Compare(a.name, b.name) }
	for i, l := range slices.SortedFunc(maps.Values(s.left), byName) {
		if i == maxTold {
			return append(all, trouble{keysTooLarge, "Secret", v1beta1.KeysSecret, fmt.Sprintf("there is no room for %d LLMProviders more: their status has the same", len(s.left)-maxTold)})
		}
		whose, then := "", "calls that need them fail"
		if l.exported {
			whose, then = ", which is exported to this namespace,", "calls to it are refused"
		}
		kind := cmp.Or(l.kind, v1beta1.KindLLMProvider)
		all = append(all, trouble{keysTooLarge, kind, l.name, fmt.Sprintf("%s %s%s %s: %s. %s", kind, l.name, whose, l, then, roomRemedy)})
	}
	return all
}

const roomRemedy = "Remedy: smaller values in the Secrets that providers name, fewer providers, or another namespace"

// String says what is wrong, after the name of the provider.
func (l leftOut) String() string {
	return fmt.Sprintf("needs %d KiB for its keys and certificates, and of the %d KiB that Secret %s can hold, %d KiB are left for it by the trusted CAs and older providers",
		(l.needs+1023)>>10, maxKeys>>10, v1beta1.KeysSecret, l.room>>10)
}

// problem says it in the status of the provider. namespaces lack it, where it is exported to them.
func (l leftOut) problem(ref routing.Ref, namespaces []string) routing.Problem {
	p := routing.Problem{Object: ref, Severity: routing.Unresolved, Code: routing.KeysTooLarge, Field: "spec.configs"}
	p.Message = fmt.Sprintf("%s: calls that need them fail. %s", l, roomRemedy)
	if l.exported {
		p.Message = fmt.Sprintf("in namespace %s it %s: calls to it are refused in %s. %s", namespaces[0], l, listed(namespaces), roomRemedy)
	}
	return p
}

// listed gives the first ten names, and the number of the others.
func listed(names []string) string {
	if len(names) <= maxTold {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:maxTold], ", "), len(names)-maxTold)
}

// fullSecrets is what the keeper knows of keys that are too much, for the status writer.
type fullSecrets struct {
	mu    sync.Mutex
	left  map[types.UID]map[string]leftOut // provider → namespaces that lack it
	again func(namespace string)           // its providers are to be judged anew
}

// tell has again called from now on. Before, the status writer has not started, which judges all then.
func (f *fullSecrets) tell(again func(namespace string)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.again = again
}

// set takes down which providers a namespace lacks; others have what it has not.
func (f *fullSecrets) set(namespace, installation string, left map[types.UID]leftOut) {
	f.mu.Lock()
	defer f.mu.Unlock()
	changed := map[string]bool{}
	change := func(l leftOut) {
		if l.exported {
			changed[installation] = true
		} else {
			changed[namespace] = true
		}
	}
	for uid, namespaces := range f.left {
		if before, ok := namespaces[namespace]; ok && before != left[uid] {
			change(before)
			if delete(namespaces, namespace); len(namespaces) == 0 {
				delete(f.left, uid)
			}
		}
	}
	for uid, l := range left {
		if f.left[uid] == nil {
			f.left[uid] = map[string]leftOut{}
		}
		if f.left[uid][namespace] != l {
			change(l)
			f.left[uid][namespace] = l
		}
	}
	for name := range changed {
		if f.again != nil {
			f.again(name)
		}
	}
}

// problems gives those of the objects that are judged.
func (f *fullSecrets) problems(objects map[types.UID]*judged) (all []routing.Problem) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for uid, namespaces := range f.left {
		j := objects[uid]
		if j == nil {
			continue
		}
		names := slices.Sorted(maps.Keys(namespaces))
		all = append(all, namespaces[names[0]].problem(j.ref, names))
	}
	return all
}
