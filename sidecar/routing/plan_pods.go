package routing

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// pods gives the labels of pods that may be treated differently: of one without any, then of those that
// selectors and rules name, each by itself and several together.
func (e *edit) pods(sides ...*compiler) []map[string]string {
	named, first := map[string]map[string]string{}, map[string]bool{}
	add := func(o *object, labels map[string]string) {
		if len(labels) > 0 {
			name := labelText(labels)
			named[name] = labels
			first[name] = first[name] || e.changed[o.object]
		}
	}
	for _, c := range sides {
		for _, o := range c.providers {
			if o.selector != nil {
				add(o, o.selector.Labels)
			}
		}
		for _, o := range c.routes {
			if !e.hosts.has(o.host) {
				continue
			}
			for i := range o.route.Spec.Rules {
				for j := range o.route.Spec.Rules[i].Matches {
					add(o, o.route.Spec.Rules[i].Matches[j].SourceLabels)
				}
			}
		}
	}
	rank := map[bool]int{true: 0, false: 1} // the labels of what was edited before those of others
	names := slices.SortedFunc(maps.Keys(named), func(a, b string) int {
		return cmp.Or(cmp.Compare(rank[first[a]], rank[first[b]]), cmp.Compare(a, b))
	})
	most := max(2, min(maxPods, 800/len(e.hosts.names)))
	pods := []map[string]string{nil}
	for _, name := range names[:min(len(names), most-1)] {
		pods = append(pods, named[name])
	}
	seen := map[string]bool{}
	for _, p := range pods {
		seen[labelText(p)] = true
	}
	for i := range pods {
		for _, other := range pods[:i] {
			both := maps.Clone(pods[i])
			for k, v := range other {
				if w, ok := both[k]; ok && v != w {
					both = nil // no pod can have both
					break
				}
				both[k] = v
			}
			if text := labelText(both); both != nil && !seen[text] && len(pods) < most {
				seen[text] = true
				pods = append(pods, both)
			}
		}
	}
	return pods
}

func labelText(labels map[string]string) string {
	var all []string
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		all = append(all, clip(k, 40)+"="+clip(labels[k], 30))
	}
	return strings.Join(all, ",")
}

// whichPods says for which pods something holds: nothing where it holds for all.
func whichPods(holds []int, pods []map[string]string) string {
	if len(holds) == len(pods) {
		return ""
	}
	in := map[int]bool{}
	for _, i := range holds {
		in[i] = true
	}
	// least gives those of pods that no other of them is a part of.
	least := func(of []int) (out []int) {
		for _, i := range of {
			if !slices.ContainsFunc(of, func(j int) bool { return j != i && subset(pods[j], pods[i]) }) {
				out = append(out, i)
			}
		}
		return out
	}
	var texts []string
	for _, i := range least(holds) {
		var others []int
		for j := range pods {
			if !in[j] && subset(pods[i], pods[j]) {
				others = append(others, j)
			}
		}
		var not []string
		for _, j := range least(others) {
			more := maps.Clone(pods[j])
			maps.DeleteFunc(more, func(k, _ string) bool { _, ok := pods[i][k]; return ok })
			not = append(not, labelText(more))
		}
		slices.Sort(not)
		text, without := "with "+labelText(pods[i]), " but not "
		if len(pods[i]) == 0 {
			text, without = "", "without "
		}
		if len(not) > 0 {
			text += without + oneOf(not)
		}
		texts = append(texts, text)
	}
	slices.Sort(texts)
	if text := "pods " + oneOf(texts); len(text) <= 90 {
		return text
	}
	return "some pods"
}

func oneOf(of []string) string {
	if len(of) > 2 {
		return fmt.Sprintf("%s or %d others", of[0], len(of)-1)
	}
	return strings.Join(of, " or ")
}
