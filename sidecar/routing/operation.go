package routing

import (
	"fmt"
	"slices"
	"strings"
)

// Operation is one of the inference operations: the only ones that a key is ever sent with. The list
// is closed, so that no call can reach a provider's administrative API.
type Operation struct {
	Name   string // as in the OpenTelemetry attribute's spirit: "chat", "embeddings"; stable
	Method string
	// Suffix is what follows the base of the API's paths, such as /chat/completions.
	Suffix string
	// JSON says that the body is a JSON object. It is read to find the model, and refused when broken.
	JSON bool
	// Edited says that the configured model and stream are written into the body.
	Edited bool
	// Form says that the body is multipart/form-data, with the model in one of its parts.
	Form bool
	// Upgrade says that the connection becomes a WebSocket. The model is in the query.
	Upgrade bool
	// Usage says that answers tell how many tokens they took.
	Usage bool
	// AskUsage says that streams tell it only where stream_options.include_usage asks for it.
	AskUsage bool
}

// chatSuffix ends the path of an OpenAI-compatible provider; what stands before it is the base of the
// paths of all operations.
const chatSuffix = "/chat/completions"

// operations is the published table (README, "What passes").
var operations = []*Operation{
	{Name: "chat", Method: "POST", Suffix: chatSuffix, JSON: true, Edited: true, Usage: true, AskUsage: true},
	{Name: "completions", Method: "POST", Suffix: "/completions", JSON: true, Edited: true, Usage: true, AskUsage: true},
	{Name: "responses", Method: "POST", Suffix: "/responses", JSON: true, Edited: true, Usage: true},
	{Name: "embeddings", Method: "POST", Suffix: "/embeddings", JSON: true, Usage: true},
	{Name: "moderations", Method: "POST", Suffix: "/moderations", JSON: true},
	{Name: "rerank", Method: "POST", Suffix: "/rerank", JSON: true, Usage: true},
	{Name: "image-generation", Method: "POST", Suffix: "/images/generations", JSON: true, Usage: true},
	{Name: "image-edit", Method: "POST", Suffix: "/images/edits", Form: true, Usage: true},
	{Name: "image-variation", Method: "POST", Suffix: "/images/variations", Form: true, Usage: true},
	{Name: "speech", Method: "POST", Suffix: "/audio/speech", JSON: true},
	{Name: "transcription", Method: "POST", Suffix: "/audio/transcriptions", Form: true, Usage: true},
	{Name: "translation", Method: "POST", Suffix: "/audio/translations", Form: true, Usage: true},
	{Name: "realtime", Method: "GET", Suffix: "/realtime", Upgrade: true},
	{Name: "models", Method: "GET", Suffix: "/models"},
}

var (
	operationChat   = operations[0]
	operationModels = operations[len(operations)-1]
)

// IsChat tells whether the operation goes to the provider's own path.
func (o *Operation) IsChat() bool { return o == operationChat }

// paths gives the paths of a host with these providers behind it. Hosts with the same ones share them.
func (c *compiler) paths(providerPaths ...string) map[string]*Operation {
	slices.Sort(providerPaths)
	id := strings.Join(slices.Compact(providerPaths), "\n")
	if c.operations[id] == nil {
		c.operations[id] = pathsFor(providerPaths)
	}
	return c.operations[id]
}

// plainPaths are those of a host that is any HTTP service: there, / is not chat.
func (c *compiler) plainPaths() map[string]*Operation {
	const id = "plain"
	if c.operations[id] == nil {
		c.operations[id] = pathsFor(nil)
		delete(c.operations[id], "/")
		delete(c.operations[id], "")
	}
	return c.operations[id]
}

// pathsFor maps the paths that an app may call at a host to operations: with the base of each provider
// behind it, with /v1, and with no base at all.
func pathsFor(providerPaths []string) map[string]*Operation {
	m := map[string]*Operation{"/": operationChat, "": operationChat}
	for _, base := range append([]string{"", "/v1"}, bases(providerPaths)...) {
		for _, o := range operations {
			m[base+o.Suffix] = o
		}
	}
	for _, p := range providerPaths {
		m[p] = operationChat
	}
	return m
}

func bases(providerPaths []string) []string {
	var all []string
	for _, p := range providerPaths {
		if base, ok := strings.CutSuffix(p, chatSuffix); ok {
			all = append(all, base)
		}
	}
	return all
}

// Operation finds the operation that a path means at this host, and for GET .../models/NAME also the
// name with its slash. path is as the app wrote it, undecoded: what is not in the table to the letter
// is not found. A nil Operation means that there is none.
func (h *Host) Operation(path []byte) (o *Operation, model string) {
	if o = h.paths[string(path)]; o != nil {
		return o, ""
	}
	for i := len(path) - 1; i >= 0; i-- {
		if path[i] != '/' {
			continue
		}
		if o = h.paths[string(path[:i])]; o == operationModels && modelName(path[i+1:]) {
			return o, string(path[i:])
		}
		break
	}
	return nil, ""
}

// Takes tells whether an operation may be asked of a target: of one that a key is sent to, nothing but inference. model is what
// Host.Operation gave.
func (t *Target) Takes(o *Operation, model string) bool {
	if o == nil || !t.Keyed() {
		return !t.Keyed()
	}
	_, ok := t.PathFor(o, model)
	return ok
}

// RefusalOf says why a target does not take a request. otherwise is what the path means with another method.
func (t *Target) RefusalOf(o, otherwise *Operation, method, path []byte) *Refusal {
	switch {
	case o != nil:
		return &Refusal{OperationNotFound, fmt.Sprintf("where %s has %s is not known, since its spec.path does not end in /chat/completions", t.Provider, o.Suffix)}
	case otherwise != nil:
		return &Refusal{MethodNotAllowed, fmt.Sprintf("%s %s is not an inference operation, and only those go to a provider with a key: use %s", method, path, otherwise.Method)}
	}
	return &Refusal{OperationNotFound, fmt.Sprintf("%s is not an inference operation, and only those go to a provider with a key: call / or /v1/chat/completions, for example", path)}
}

// modelName tells whether s, undecoded, is the name of a model and nothing that could lead elsewhere
// once a provider decodes it. The only escapes are %2F (between parts) and %3A.
func modelName(s []byte) bool {
	part := 0 // length of the part so far
	dots := 0 // how many of it are dots
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '%':
			if i+2 >= len(s) {
				return false
			}
			switch strings.ToUpper(string(s[i+1 : i+3])) {
			case "2F":
				if part == dots {
					return false
				}
				part, dots = -1, 0
			case "3A":
			default:
				return false
			}
			i += 2
		case c == '.':
			dots++
		case c == '-' || c == '_' || c == ':' || c == '@' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z':
		default:
			return false
		}
		part++
	}
	return part > dots
}
