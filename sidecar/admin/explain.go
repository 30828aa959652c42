package admin

import (
	"encoding/json"
	"fmt"
	"net/textproto"
	"strconv"
	"strings"

	"github.com/valyala/fasthttp"

	"remora.dev/remora/sidecar/routing"
)

// explain answers which rule would take a request that nobody has made.
func (s *Server) explain(c *fasthttp.RequestCtx) {
	q, err := question(c.QueryArgs())
	if err != nil {
		say(c, fasthttp.StatusBadRequest, "%s", err)
		return
	}
	sayJSON(c, s.store.Load().Table.Explain(q))
}

// sayJSON answers with what always marshals.
func sayJSON(c *fasthttp.RequestCtx, v any) {
	c.SetContentType("application/json")
	e := json.NewEncoder(c)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	_ = e.Encode(v)
}

// question reads the parameters of /explain. What is wrong with one is said with its name.
func question(args *fasthttp.Args) (*routing.Question, error) {
	q := &routing.Question{Header: map[string][]string{}}
	seen := map[string]bool{}
	for key, v := range args.All() {
		name, value := string(key), string(v)
		if seen[name] && name != "header" {
			return nil, fmt.Errorf("%s: is given twice", name)
		}
		seen[name] = true
		if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return nil, fmt.Errorf("%s: has a control character", presentable(name))
		}
		switch name {
		case "host":
			q.Host = value
		case "method":
			if q.Method = value; !token(value) {
				return nil, fmt.Errorf("method: %q is none: use POST, for example", value)
			}
		case "path":
			if q.Path = value; !strings.HasPrefix(value, "/") || strings.ContainsAny(value, "# ") {
				return nil, fmt.Errorf("path: %q is none: begin with /, and escape what cannot be in a path", value)
			}
		case "model":
			q.Model = value
		case "header":
			header, is, found := strings.Cut(value, ":")
			if header = strings.TrimSpace(header); !found || !token(header) {
				return nil, fmt.Errorf("header: %q is none: write NAME:VALUE", value)
			}
			header = textproto.CanonicalMIMEHeaderKey(header)
			q.Header[header] = append(q.Header[header], strings.Trim(is, " \t"))
		case "port":
			n, err := strconv.ParseUint(value, 10, 16)
			if q.Port = uint16(n); err != nil || n == 0 {
				return nil, fmt.Errorf("port: %q is none: use 1 to 65535", value)
			}
		default:
			return nil, fmt.Errorf("%s: is not known: use host, method, path, model, header and port", presentable(name))
		}
	}
	switch {
	case q.Host == "":
		return nil, fmt.Errorf("host: is missing: name the host that is called")
	case strings.ContainsAny(q.Host, "/?#@ "):
		return nil, fmt.Errorf("host: %q is none: write a name, and a port if you like, without http:// and path", q.Host)
	}
	return q, nil
}

// presentable is a name that came from outside, on one line.
func presentable(name string) string {
	if token(name) && len(name) <= 100 {
		return name
	}
	return fmt.Sprintf("%.100q", name)
}

// token tells whether s can be the name of a header or method.
func token(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
	})
}

// configuration is what /config?format=json answers with.
type configuration struct {
	routing.Shown
	Ready    bool      `json:"ready"`
	Outage   string    `json:"outage,omitempty"`
	Problems []problem `json:"problems"`
}

type problem struct {
	Severity string       `json:"severity"`
	Object   string       `json:"object"`
	Field    string       `json:"field,omitempty"`
	Code     routing.Code `json:"code"`
	Message  string       `json:"message"`
}

func (s *Server) configJSON(c *fasthttp.RequestCtx) {
	current := s.store.Load()
	out := configuration{Shown: current.Table.Show(), Ready: current.Ready, Outage: outage(current, ""), Problems: []problem{}}
	for _, p := range current.Problems {
		out.Problems = append(out.Problems, problem{fmt.Sprint(p.Severity), p.Object.String(), p.Field, p.Code, p.Message})
	}
	sayJSON(c, out)
}
