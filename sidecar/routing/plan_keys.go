package routing

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// maxNamed is how many keys, users or namespaces are told one by one.
const maxNamed = 3

// keyFills says what is different about the keys that are sent.
func (t *Target) keyFills(now *Target) []fill {
	out := otherKeys(t.sharing(), now.sharing(), now.Endpoint.Value().TLS)
	if t.Auth != now.Auth && t.Keyed() && now.Keyed() {
		out = append(out, fill{rankFill, fmt.Sprintf("the key is sent in %s instead of %s", now.Auth.header(), t.Auth.header())})
	}
	return out
}

func otherKeys(was, is []Credential, tls bool) (out []fill) {
	switch {
	case slices.Equal(was, is):
		return nil
	case len(is) == 0:
		return []fill{{rankMove, "no key is sent any more: the app's own credentials pass"}}
	case len(was) == 0 && tls:
		return []fill{{rankFill, "a key is sent from now on, and only inference calls pass"}}
	case len(was) == 0:
		return []fill{{rankDanger, "a key is sent from now on, in plain text, and only inference calls pass"}}
	}
	add := func(format string, args ...any) {
		out = append(out, fill{rankFill, fmt.Sprintf(format, args...)})
	}
	gone, came, stay := apart(was, is)
	if len(stay) == 0 {
		add("another key is sent, %s instead of %s", sources("that", "one", is), sources("that", "one", was))
		return out
	}
	if len(came) > 0 {
		add("%s of calls get another key from now on, %s", percent(share(came, is)), sources("that", "one", came))
	}
	if len(gone) > 0 {
		add("no call gets %s any more", sources("the key", "the keys", gone))
	}
	if slices.ContainsFunc(stay, func(k pair) bool { return k.was.Key != k.is.Key }) {
		add("another key is sent")
	}
	if otherShares(stay) {
		add("%s", sharesText(stay, was, is))
	}
	return out
}

// sharing gives the keys that take calls.
func (t *Target) sharing() []Credential {
	return slices.DeleteFunc(slices.Clone(t.Keys), func(k Credential) bool { return k.Weight == 0 })
}

// pair is a key before and after.
type pair struct{ was, is Credential }

// apart tells the keys that go and come from those that stay.
func apart(was, is []Credential) (gone, came []Credential, stay []pair) {
	named := func(all []Credential, name string) int {
		return slices.IndexFunc(all, func(k Credential) bool { return k.Name == name })
	}
	for _, k := range was {
		if i := named(is, k.Name); i < 0 {
			gone = append(gone, k)
		} else {
			stay = append(stay, pair{k, is[i]})
		}
	}
	for _, k := range is {
		if named(was, k.Name) < 0 {
			came = append(came, k)
		}
	}
	return gone, came, stay
}

// share is what some of several keys take of the calls.
func share(some, all []Credential) float64 {
	total := func(keys []Credential) (sum float64) {
		for _, k := range keys {
			sum += float64(k.Weight)
		}
		return sum
	}
	return total(some) / total(all)
}

// otherShares tells whether the keys that stay have another proportion. What the others bring or leave goes without saying.
func otherShares(stay []pair) bool {
	first := stay[0]
	return slices.ContainsFunc(stay, func(k pair) bool {
		return uint64(k.was.Weight)*uint64(first.is.Weight) != uint64(k.is.Weight)*uint64(first.was.Weight)
	})
}

func sharesText(stay []pair, was, is []Credential) string {
	var parts []string
	for _, k := range stay {
		before, after := percent(share([]Credential{k.was}, was)), percent(share([]Credential{k.is}, is))
		if before != after {
			parts = append(parts, fmt.Sprintf("%s %s instead of %s", source(k.is), after, before))
		}
	}
	if len(parts) == 0 {
		return "calls are spread otherwise over the keys, by less than 1 %"
	}
	return "calls are spread otherwise over the keys: " + listed(parts)
}

// sources says where keys come from.
func sources(one, several string, keys []Credential) string {
	if keys[0].Name == inlineName || strings.HasPrefix(keys[0].Name, inlineName+" ") { // which is the only one
		return one + " in the object"
	}
	var names []string
	for _, k := range keys {
		names = append(names, source(k))
	}
	if len(names) == 1 {
		return one + " of Secret " + names[0]
	}
	return several + " of Secrets " + listed(names)
}

func source(k Credential) string { return clip(strings.TrimPrefix(k.Name, "secret "), 50) }

// userFills says whose processes may use a provider that could not, and the other way round.
func (t *Target) userFills(now *Target) (out []fill) {
	missing := func(from, of []uint32) (out []string) {
		for _, uid := range of {
			if _, found := slices.BinarySearch(from, uid); !found {
				out = append(out, strconv.FormatUint(uint64(uid), 10))
			}
		}
		return out
	}
	refused := func(who string) {
		out = append(out, fill{rankDanger, "processes of " + who + " are refused from now on, 403 " + string(CallerNotAllowed)})
	}
	served := func(who string) {
		out = append(out, fill{rankServed, "processes of " + who + " are served from now on, no longer refused (403 " + string(CallerNotAllowed) + ")"})
	}
	gone, came := missing(now.UIDs, t.UIDs), missing(t.UIDs, now.UIDs)
	switch {
	case len(t.UIDs) == 0 && len(came) > 0:
		refused("other users than " + listed(came))
		return out
	case len(now.UIDs) == 0 && len(gone) > 0:
		served("other users than " + listed(gone))
		return out
	}
	if len(gone) > 0 {
		refused(users(gone))
	}
	if len(came) > 0 {
		served(users(came))
	}
	return out
}

func users(uids []string) string {
	if len(uids) == 1 {
		return "user " + uids[0]
	}
	return "users " + listed(uids)
}

// listed names the first of several.
func listed(names []string) string {
	switch n := len(names); {
	case n == 1:
		return names[0]
	case n > maxNamed+1:
		return strings.Join(names[:maxNamed], ", ") + fmt.Sprintf(" and %d more", n-maxNamed)
	default:
		return strings.Join(names[:n-1], ", ") + " and " + names[n-1]
	}
}
