package main

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"remora.dev/remora/sidecar/routing"
)

func TestRoomIsDividedInOrderAndNobodyGetsAPart(t *testing.T) {
	f := func(what string, claims []claim, sizes, withheld map[string]int, entries string, left ...string) {
		t.Helper()
		s := divide(claims, sizes, withheld, 1000)
		if got := strings.Join(slices.Sorted(maps.Keys(s.entries)), " "); got != entries {
			t.Errorf("%s: there is %q, and not %q", what, got, entries)
		}
		var out []string
		for _, l := range s.left {
			out = append(out, l.name)
		}
		if slices.Sort(out); !slices.Equal(out, left) {
			t.Errorf("%s: left out are %q, and not %q", what, out, left)
		}
	}
	own := func(name string, entries ...string) claim {
		return claim{uid: types.UID(name), name: name, entries: entries}
	}
	shared := func(name string) claim {
		return claim{uid: types.UID(name), name: name, exported: true, entries: []string{name}}
	}
	sizes := map[string]int{"a": 400, "b": 400, "c": 400, "small": 10, "none": 0, "huge": 5000}
	f("what fits", []claim{own("1", "a"), own("2", "b")}, sizes, nil, "a b")
	f("a younger one", []claim{own("1", "a"), own("2", "b"), own("3", "c"), own("4", "small")}, sizes, nil, "a b small", "3")
	f("one of several Secrets", []claim{own("1", "a"), own("2", "b"), own("3", "c", "small")}, sizes, nil, "a b", "3")
	f("the same Secret", []claim{own("1", "a"), own("2", "b"), own("3", "a", "b"), own("4", "a", "c")}, sizes, nil, "a b", "4")
	f("what is not there", []claim{own("1", "missing", "none"), own("2")}, sizes, nil, "none")
	f("one that is too large for all", []claim{own("1", "huge"), own("2", "a")}, sizes, nil, "a", "1")
	f("an exported one", []claim{own("1", "a"), shared("b"), shared("c")}, sizes, map[string]int{"b": 50, "c": 50}, "a b", "c")
	f("an exported one that is smaller than its stand-in", []claim{own("1", "a"), own("2", "b"), shared("small")}, sizes, map[string]int{"small": 100}, "a b small")
	f("hosts before keys", []claim{own("1", "a"), own("2", "b"), shared("c")}, sizes, map[string]int{"c": 150}, "a c", "2")
	f("one without a stand-in", []claim{own("1", "a"), shared("b"), shared("c")}, sizes, map[string]int{"b": 50}, "a b", "c")
}

// Whatever is claimed: there is never more than there is room for, nobody has a part, and who is left out found no room.
func TestNoClaimsAreMoreThanTheRoom(t *testing.T) {
	for seed := range uint64(2000) {
		random := rand.New(rand.NewPCG(seed, 0))
		sizes, withheld := map[string]int{}, map[string]int{}
		var claims []claim
		for i := range random.IntN(30) {
			c := claim{uid: types.UID(fmt.Sprint(i)), name: fmt.Sprint(i), exported: random.IntN(3) == 0}
			for range 1 + random.IntN(3) {
				entry := fmt.Sprintf("s%d", random.IntN(20))
				if c.exported {
					entry = fmt.Sprintf("_%d", i)
				}
				if random.IntN(10) > 0 {
					sizes[entry] = random.IntN(400)
				}
				c.entries = append(c.entries, entry)
				if c.exported {
					sizes[entry], withheld[entry] = random.IntN(400), 20
					break
				}
			}
			claims = append(claims, c)
		}
		const room = 2000
		s := divide(claims, sizes, withheld, room)
		used := 0
		for entry := range s.entries {
			used += entrySize(entry, sizes[entry])
		}
		for entry, size := range withheld {
			if !s.entries[entry] {
				used += entrySize(entry, size)
			}
		}
		if used > room {
			t.Fatalf("seed %d: %d of %d", seed, used, room)
		}
		for _, c := range claims {
			_, out := s.left[c.uid]
			for _, entry := range c.entries {
				if _, ok := sizes[entry]; ok && !out && !s.entries[entry] {
					t.Fatalf("seed %d: %s has a part", seed, c.name)
				}
			}
			if out && s.left[c.uid].needs <= s.left[c.uid].room {
				t.Fatalf("seed %d: %s is left out though there is room", seed, c.name)
			}
		}
	}
}

func TestNamespacesWithoutRoomAreToldOnceAndForgotten(t *testing.T) {
	f := &fullSecrets{left: map[types.UID]map[string]leftOut{}}
	var again []string
	f.tell(func(namespace string) { again = append(again, namespace) })
	set := func(namespace string, left map[types.UID]leftOut, want ...string) {
		t.Helper()
		again = nil
		f.set(namespace, "system", left)
		if slices.Sort(again); !slices.Equal(again, want) {
			t.Errorf("judged again is %q, and not %q", again, want)
		}
	}
	own, shared := leftOut{name: "own", needs: 10, room: 5}, leftOut{name: "shared", exported: true, needs: 10, room: 5}
	set("a", map[types.UID]leftOut{"o": own, "s": shared}, "a", "system")
	set("a", map[types.UID]leftOut{"o": own, "s": shared})
	for i := range 20 {
		set(fmt.Sprintf("n%02d", i), map[types.UID]leftOut{"s": shared}, "system")
	}
	ref := routing.Ref{Kind: "LLMProvider", Namespace: "system", Name: "shared"}
	problems := f.problems(map[types.UID]*judged{"s": {object: &object{ObjectMeta: metav1.ObjectMeta{Name: "shared"}, ref: ref}}})
	if len(problems) != 1 || problems[0].Object != ref || problems[0].Code != routing.KeysTooLarge || !strings.Contains(problems[0].Message, "a, n00, n01") || !strings.Contains(problems[0].Message, "n08 and 11 more") {
		t.Errorf("%v", problems)
	}
	set("a", map[types.UID]leftOut{"s": shared}, "a")
	set("a", nil, "system")
	for i := range 20 {
		set(fmt.Sprintf("n%02d", i), nil, "system")
	}
	if len(f.left) > 0 {
		t.Errorf("%v is left", f.left)
	}
}
