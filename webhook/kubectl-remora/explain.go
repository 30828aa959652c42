package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"remora.dev/remora/sidecar/routing"
)

// explain is the command `explain request`.
type explain struct {
	app    *app
	pick   selection
	from   string
	files  offline
	host   string
	header []string
	model  string
	path   string
	method string
	port   uint16
	format string
}

func (a *app) explainCommand() *cobra.Command {
	parent := &cobra.Command{
		Use:   "explain",
		Short: "Say where a request would go, and why",
		Args:  cobra.ArbitraryArgs,
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage("%q cannot be explained: use explain request", args[0])
			}
			return usage("say what is to be explained: explain request")
		},
	}
	e := &explain{app: a, pick: selection{app: a}}
	c := &cobra.Command{
		Use:   "request --host HOST (--from POD | --config FILE)",
		Short: "Say which rule, provider and model a request would get, and why",
		Long: `Say which rule, provider and model a request would get, and why; and which rules are passed over for it. The request is not made.

With --from, the sidecar or gateway of that pod says so by the configuration that runs there; of a Deployment or Service, any of its pods.
With --config, it is said here by the configuration in a file or folder: there need be no cluster.

--from takes the rights to get pods and to create pods/portforward; to name a Deployment or Service, to get that and to list pods.`,
		Example: `  # Where does this call of the pod go?
  kubectl remora explain request --from pod/sleep --host demo-llm-server -H 'user-type: subscriber'

  # And by the files that are to be applied, for pods with this label?
  kubectl remora explain request --config routes/ -n demo --labels app=sleep --host demo-llm-server --model qwen-max

  # At a gateway
  kubectl remora explain request -n remora-gateway --from deploy/remora-gateway --host llm.example.com --path /v1/embeddings`,
		RunE: func(c *cobra.Command, _ []string) error { return e.run(c.Context()) },
	}
	f := c.Flags()
	f.StringVar(&e.from, "from", "", "The pod that makes the request, as pod/NAME, or the KIND/NAME of what has pods")
	f.StringVar(&e.host, "host", "", "The host that is called, as in the URL")
	f.StringArrayVarP(&e.header, "header", "H", nil, "A header of the request, as 'NAME: VALUE'; may be given several times")
	f.StringVarP(&e.model, "model", "m", "", "The model that the request asks for")
	f.StringVar(&e.path, "path", "", "The path that is called (default: /)")
	f.StringVarP(&e.method, "method", "X", "POST", "The method")
	f.Uint16Var(&e.port, "port", 0, "The port of a gateway that is called")
	f.StringVarP(&e.format, "output", "o", "text", "text or json")
	e.files.addFlags(c)
	e.pick.app.completePods(c, "from")
	parent.AddCommand(c)
	return parent
}

func (e *explain) run(ctx context.Context) error {
	question, err := e.question()
	if err != nil {
		return err
	}
	var answer *routing.Explanation
	if e.files.path != "" {
		answer, err = e.files.explain(e.app, question)
	} else {
		answer, err = e.ask(ctx, question)
	}
	switch {
	case err != nil:
		return err
	case e.format == "json":
		return e.app.page.json(answer)
	}
	return e.app.page.explanation(question, answer)
}

// question is what the flags ask.
func (e *explain) question() (*routing.Question, error) {
	if err := oneOf("output", e.format, "text", "json"); err != nil {
		return nil, err
	}
	switch {
	case e.host == "":
		return nil, usage("--host is missing: name the host that is called")
	case strings.ContainsAny(e.host, "/?#@ "):
		return nil, usage("--host %q is no host: write it without http:// and path, which is --path", e.host)
	case e.path != "" && !strings.HasPrefix(e.path, "/"):
		return nil, usage("--path %q does not begin with /", e.path)
	case (e.from == "") == (e.files.path == ""):
		return nil, usage("say who is asked: --from pod/NAME, or --config FILE, but not both")
	}
	q := &routing.Question{Method: e.method, Host: e.host, Path: e.path, Model: e.model, Port: e.port, Header: map[string][]string{}}
	for _, header := range e.header {
		name, value, found := strings.Cut(header, ":")
		if name = strings.TrimSpace(name); !found || name == "" {
			return nil, usage("-H %q is no header: write 'NAME: VALUE'", header)
		}
		name = textproto.CanonicalMIMEHeaderKey(name)
		q.Header[name] = append(q.Header[name], strings.TrimSpace(value))
	}
	return q, nil
}

// ask lets the pod say it.
func (e *explain) ask(ctx context.Context, q *routing.Question) (*routing.Explanation, error) {
	body, of, err := e.app.admin(ctx, &e.pick, e.from, "/explain", asQuery(q))
	if err != nil {
		return nil, err
	}
	var answer routing.Explanation
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("%s: its answer cannot be read: %w", of, err)
	}
	return &answer, nil
}

func asQuery(q *routing.Question) url.Values {
	query := url.Values{"host": {q.Host}}
	for name, value := range map[string]string{"method": q.Method, "path": q.Path, "model": q.Model} {
		if value != "" {
			query.Set(name, value)
		}
	}
	if q.Port != 0 {
		query.Set("port", strconv.Itoa(int(q.Port)))
	}
	for name, values := range q.Header {
		for _, value := range values {
			query.Add("header", name+": "+value)
		}
	}
	return query
}

// admin asks the admin port of a pod. It gives the pod, too.
func (a *app) admin(ctx context.Context, pick *selection, name, path string, query url.Values) ([]byte, podID, error) {
	client, err := a.client()
	if err != nil {
		return nil, podID{}, err
	}
	server, err := pick.one(ctx, client, name)
	if err != nil {
		return nil, podID{}, err
	}
	body, err := a.adminOf(ctx, server.podID, path, query)
	return body, server.podID, err
}

func (a *app) adminOf(ctx context.Context, pod podID, path string, query url.Values) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	t, err := a.open(ctx, pod)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", pod, inTime(ctx, err))
	}
	defer t.close()
	body, err := t.get(ctx, adminPort, path, query)
	var refused *statusError
	switch {
	case errors.As(err, &refused) && refused.status == 404:
		return nil, fmt.Errorf("%s: its sidecar is of a version that has no %s: make the pod anew", pod, path)
	case errors.As(err, &refused) && refused.status == 400:
		return nil, usage("%s", refused.text)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", pod, inTime(ctx, err))
	}
	return body, nil
}
