package routing

import (
	"maps"
	"net/url"
	"slices"
	"strings"

	"remora.dev/remora/apis/v1beta1"
)

// judgeQuery finds what is wrong with the parameters that a provider gets in each query. Values are not shown:
// they may be credentials.
func judgeQuery(f *findings, query map[string]v1beta1.QueryValue) {
	const field = "spec.query"
	if n := len(query); n > v1beta1.MaxQuery {
		f.invalid(InvalidValue, field, "has %d entries: at most %d are allowed", n, v1beta1.MaxQuery)
	}
	known := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		at, value := field+"["+name+"]", string(query[name])
		switch {
		case name == "" || len(name) > 128 || strings.ContainsFunc(name, notInName):
			if !nameLike.MatchString(name) {
				at = field
			}
			f.invalid(InvalidValue, at, "the name of a parameter has letters, digits, ., _, ~ and -, at most 128: write the name alone, and its value after the colon")
			continue
		case known[strings.ToLower(name)] != "":
			f.invalid(InvalidValue, at, "is %s in other letters, which servers may take for the same: keep one of them", known[strings.ToLower(name)])
		}
		known[strings.ToLower(name)] = name
		switch {
		case len(value) > 1024:
			f.invalid(InvalidValue, at, "is longer than 1024 characters: a query is no place for that much")
		case strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' }):
			f.invalid(InvalidValue, at, "has control or non-ASCII characters: write the value without quotes and line breaks")
		case strings.ContainsAny(value, "&#"):
			f.invalid(InvalidValue, at, "has & or # in it: write one value only, and other parameters as entries of their own")
		case strings.Contains(value, "%"):
			f.invalid(InvalidValue, at, "has %% in it: write the value as it is meant, it is escaped on the way")
		case variable.MatchString(value):
			warnVariable(f, at, value)
		case secretive(name) && value != "":
			f.warn(InlineKey, at, "looks like a credential, and whoever may read this object has it: where the provider takes its key in a header, name a Secret in apiKeyRef and choose the header with spec.authScheme")
		}
	}
}

func notInName(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("._~-", r)
}

// secretive tells whether the name of a parameter is one under which credentials are sent.
func secretive(name string) bool {
	words := strings.FieldsFunc(strings.ToLower(name), func(r rune) bool { return strings.ContainsRune("._~-", r) })
	return slices.ContainsFunc(words, func(word string) bool {
		switch word {
		case "key", "apikey", "token", "secret", "password", "passwd", "auth", "authorization", "credential", "credentials", "sig", "signature",
			"accesskey", "accesstoken", "secretkey", "authtoken":
			return true
		}
		return false
	})
}

// queryOf gives a provider's parameters as they are sent, sorted by name, and as they may be shown.
func queryOf(query map[string]v1beta1.QueryValue) (sent, shown string) {
	var all, clear []string
	for _, name := range slices.Sorted(maps.Keys(query)) {
		// A plus is a space in forms only, and there are servers that take it for itself in queries.
		value := strings.ReplaceAll(url.QueryEscape(string(query[name])), "+", "%20")
		all = append(all, name+"="+value)
		if secretive(name) {
			value = "…"
		}
		clear = append(clear, name+"="+value)
	}
	return strings.Join(all, "&"), strings.Join(clear, "&")
}
