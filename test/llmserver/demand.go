package llmserver

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// credentials are the headers that can carry a key. The one that a host does not want must not be there: a key of the
// app's would have gone to a provider that it is not for.
var credentials = []string{"Authorization", "Api-Key", "X-Api-Key"}

// demand is what a host wants of each request. The zero demand is nothing.
type demand struct {
	key    string
	header string // in canonical form; Authorization means a bearer token
	query  url.Values
}

func demandsOf(options Options) (map[string]demand, error) {
	all := map[string]demand{}
	for host, key := range options.Keys {
		all[hostname(host)] = demand{key: key, header: "Authorization"}
	}
	for host, header := range options.KeyHeaders {
		d := all[hostname(host)]
		if d.key == "" {
			return nil, fmt.Errorf("llmserver: %s wants its key in %s, and has none in Keys", host, header)
		}
		d.header = http.CanonicalHeaderKey(header)
		all[hostname(host)] = d
	}
	for host, query := range options.Queries {
		d := all[hostname(host)]
		var err error
		if d.query, err = url.ParseQuery(query); err != nil {
			return nil, fmt.Errorf("llmserver: the query of %s: %w", host, err)
		}
		all[hostname(host)] = d
	}
	return all, nil
}

// check gives the refusal of a request that does not do what the host demands.
func (d demand) check(request *Request) *answer {
	if refused := d.checkKey(request.Header); refused != nil {
		return refused
	}
	return d.checkQuery(request.RawQuery)
}

func (d demand) checkKey(header http.Header) *answer {
	if d.key == "" {
		return nil
	}
	want, example := d.key, "KEY"
	if d.header == "Authorization" {
		want, example = "Bearer "+d.key, "Bearer KEY"
	}
	sent := header.Values(d.header)
	message := ""
	switch {
	case len(sent) == 0:
		message = fmt.Sprintf("You didn't provide an API key: send it in the header %s, as %s.", d.header, example)
	case len(sent) > 1:
		message = fmt.Sprintf("%d headers %s.", len(sent), d.header)
	case sent[0] != want:
		message = "Incorrect API key provided."
	}
	for _, other := range credentials {
		if message == "" && other != d.header && header.Values(other) != nil {
			message = fmt.Sprintf("The key came in %s, and there is %s as well: whose key is that?", d.header, other)
		}
	}
	if message == "" {
		return nil
	}
	a := failure(http.StatusUnauthorized, message, "invalid_api_key")
	return &a
}

func (d demand) checkQuery(raw string) *answer {
	if d.query == nil {
		return nil
	}
	got, err := url.ParseQuery(raw)
	message := ""
	if err != nil {
		message = fmt.Sprintf("The query cannot be read: %v.", err)
	}
	for name, values := range d.query {
		if sent := got[name]; message == "" && (len(sent) != 1 || sent[0] != values[0]) {
			message = fmt.Sprintf("The query parameter %s is %q; it must come once, as %s.", name, sent, strings.Join(values, ","))
		}
	}
	if message == "" {
		return nil
	}
	a := failure(http.StatusBadRequest, message, "bad_query")
	return &a
}
