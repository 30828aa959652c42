package routing

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
	goyaml "sigs.k8s.io/yaml/goyaml.v2"
)

// twin is a field that is given twice. Only the last one counts for the decoder; the hosts of both do.
type twin struct {
	path  string
	hosts []string
}

// parse reads YAML or JSON as a tree of maps, lists and plain values.
func parse(doc []byte) (tree any, twins []twin, err error) {
	text, strictErr := yaml.YAMLToJSONStrict(doc)
	if strictErr != nil {
		if text, err = yaml.YAMLToJSON(doc); err != nil {
			return nil, nil, fmt.Errorf("%w: %s", ErrNotAnObject, yamlReason(err))
		}
		// The strict parser also takes offence at a value that overrides a merged one, which is what
		// merging is for. Here it is looked for once more, with the paths.
		var whole goyaml.MapSlice
		if goyaml.Unmarshal(doc, &whole) == nil {
			twins = findTwins(nil, whole, "")
		}
	}
	if err := kjson.UnmarshalCaseSensitivePreserveInts(text, &tree); err != nil {
		return nil, nil, fmt.Errorf("%w: it cannot be read", ErrNotAnObject)
	}
	return tree, twins, nil
}

// yamlReason says why text is not YAML, without the pieces of it that the parser quotes: they may be keys.
func yamlReason(err error) string {
	reason := strings.Join(strings.Fields(err.Error()), " ")
	for _, prefix := range []string{"error converting YAML to JSON: ", "yaml: "} {
		reason = strings.TrimPrefix(reason, prefix)
	}
	for _, quoting := range []struct{ mark, say string }{
		{"unknown anchor", "a value begins with * and so refers to an anchor that is not there: put it in quotes"},
		{"anchor '", "an anchor's value contains itself: write the value out"},
		{"map key", "a key is not a name: put templates such as {{ … }}, and whatever else has braces or brackets, in quotes"},
		{"cannot decode", "a value is not what its tag (!!) says: remove the tag"},
		{"unsupported value", "a number is infinite or none (.inf, .nan): write a number"},
	} {
		if strings.Contains(reason, quoting.mark) {
			return quoting.say
		}
	}
	reason, _, _ = strings.Cut(reason, "`")
	return "it is not YAML: " + reason
}

func findTwins(found []twin, v any, path string) []twin {
	switch v := v.(type) {
	case []any:
		for i, e := range v {
			found = findTwins(found, e, path+"["+strconv.Itoa(i)+"]")
		}
	case goyaml.MapSlice:
		values := map[string][]any{}
		for _, item := range v {
			name := fmt.Sprint(item.Key)
			values[name] = append(values[name], item.Value)
		}
		for _, name := range slices.Sorted(maps.Keys(values)) {
			at := join(path, name)
			if len(values[name]) > 1 {
				t := twin{path: at}
				for _, value := range values[name] {
					t.hosts = hostsIn(t.hosts, hostFields, name, value)
				}
				found = append(found, t)
			}
			for _, value := range values[name] {
				found = findTwins(found, value, at)
			}
		}
	}
	return found
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// The fields that name hosts: those that an object answers for, and all.
var (
	claimFields = []string{"host", "hostname"}
	hostFields  = []string{"host", "hostname", "providerHost"}
)

// hostsIn adds the hosts that a value names in the given fields, whatever else is wrong with it. name is
// that of the value's own field.
func hostsIn(hosts, fields []string, name string, v any) []string {
	isHost := slices.ContainsFunc(fields, func(known string) bool {
		return strings.EqualFold(name, known) || oneEdit(name, known)
	})
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			hosts = hostsIn(hosts, fields, name, e)
		}
	case map[string]any:
		for _, field := range slices.Sorted(maps.Keys(v)) {
			if field == "matches" {
				continue // a header may be called host
			}
			if isHost {
				hosts = append(hosts, field) // {example.com} is a map with one key
			}
			hosts = hostsIn(hosts, fields, field, v[field])
			if isHost {
				hosts = hostsIn(hosts, fields, name, v[field])
			}
		}
	case goyaml.MapSlice:
		for _, item := range v {
			hosts = hostsIn(hosts, fields, fmt.Sprint(item.Key), item.Value)
		}
	case nil:
	default:
		if isHost {
			hosts = append(hosts, fmt.Sprint(v))
		}
	}
	return hosts
}
