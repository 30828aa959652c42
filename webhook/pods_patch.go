package main

import (
	"bytes"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"remora.dev/remora/apis/v1beta1"
)

// operation is one of a JSON patch (RFC 6902).
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value,omitempty"`
}

// patchOf gives the JSON patch that makes of a pod, as the API server sent it, what before became: after. It is empty where
// nothing changed.
//
// controller-runtime's own way compares lists index by index: with two containers in front of the user's, that is a patch of
// every field of each, in which the fields that an API server newer than this program knows stay behind at the old index, and
// so end up in our containers. Here the containers and volumes of the user are found again by name, and kept as they came.
func patchOf(raw []byte, before, after *corev1.Pod) ([]byte, error) {
	sent, err := decoded(raw)
	if err != nil {
		return nil, err
	}
	was, err := plainJSON(before)
	if err != nil {
		return nil, err
	}
	is, err := plainJSON(after)
	if err != nil {
		return nil, err
	}
	wanted, _ := carried(sent, was, is).(map[string]any)
	all := operations("", sent, wanted)
	if len(all) == 0 {
		return nil, nil
	}
	return json.Marshal(all)
}

func plainJSON(pod *corev1.Pod) (map[string]any, error) {
	text, err := json.Marshal(pod)
	if err != nil {
		return nil, err
	}
	return decoded(text)
}

func decoded(text []byte) (map[string]any, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber() // none may change
	var m map[string]any
	return m, d.Decode(&m)
}

// carried does to what was sent what was done to its typed form.
func carried(sent, was, is any) any {
	if reflect.DeepEqual(was, is) {
		return sent
	}
	switch is := is.(type) {
	case map[string]any:
		sent, ok := sent.(map[string]any)
		was, ok2 := was.(map[string]any)
		if ok && ok2 {
			return carriedMaps(sent, was, is)
		}
	case []any:
		sent, ok := sent.([]any)
		was, ok2 := was.([]any)
		if ok && ok2 && len(sent) == len(was) {
			return carriedLists(sent, was, is)
		}
	}
	return is
}

func carriedMaps(sent, was, is map[string]any) map[string]any {
	out := maps.Clone(sent)
	for key := range was {
		if _, ok := is[key]; !ok {
			delete(out, key)
		}
	}
	for key, value := range is {
		old, ok := was[key]
		if !ok {
			out[key] = value
		} else if s, ok := sent[key]; ok {
			out[key] = carried(s, old, value)
		} else if !reflect.DeepEqual(old, value) {
			out[key] = value
		}
	}
	return out
}

// carriedLists finds elements again by their names. Those with our names are as they should be, with nothing that anybody added.
func carriedLists(sent, was, is []any) []any {
	at := map[string]int{}
	for i, element := range was {
		name := nameOf(element)
		if _, twice := at[name]; name == "" || twice {
			return is
		}
		at[name] = i
	}
	out := make([]any, 0, len(is))
	for _, element := range is {
		i, ok := at[nameOf(element)]
		if !ok || slices.Contains(ourNames, nameOf(element)) {
			out = append(out, element)
		} else {
			out = append(out, carried(sent[i], was[i], element))
		}
	}
	return out
}

var ourNames = []string{v1beta1.RedirectContainer, v1beta1.SidecarContainer, v1beta1.AccessVolume, v1beta1.StateVolume, v1beta1.PodVolume}

func nameOf(element any) string {
	m, _ := element.(map[string]any)
	name, _ := m["name"].(string)
	return name
}

// operations makes one map of another. A list that differs is replaced as a whole.
func operations(path string, from, to map[string]any) []operation {
	var all []operation
	for _, key := range slices.Sorted(maps.Keys(from)) {
		if _, ok := to[key]; !ok {
			all = append(all, operation{Op: "remove", Path: path + "/" + escaped(key)})
		}
	}
	for _, key := range slices.Sorted(maps.Keys(to)) {
		old, ok := from[key]
		at := path + "/" + escaped(key)
		deeper, isMap := to[key].(map[string]any)
		wasMap, both := old.(map[string]any)
		switch {
		case !ok:
			all = append(all, operation{"add", at, to[key]})
		case isMap && both:
			all = append(all, operations(at, wasMap, deeper)...)
		case !reflect.DeepEqual(old, to[key]):
			all = append(all, operation{"replace", at, to[key]})
		}
	}
	return all
}

// escaped is for a JSON pointer (RFC 6901).
func escaped(key string) string {
	return strings.ReplaceAll(strings.ReplaceAll(key, "~", "~0"), "/", "~1")
}
