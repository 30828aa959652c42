package routing

// Question is a request that nobody has made, of which Explain says what would become of it.
type Question struct {
	Method string // empty: POST
	Host   string // as in the Host header
	Path   string // may have a query; empty: /
	Model  string // that the body asks for; empty: none
	Header map[string][]string
	Port   uint16 // of a gateway, that was called; 0: the first that has a server for the host
}

// Explanation says where a request goes, and why. It has no key, only the names of keys.
type Explanation struct {
	Host    string   `json:"host"`              // as the configuration names it; where it is nobody's, as it was asked for
	Owned   bool     `json:"owned"`             // false: a sidecar passes it on as it is, unless there is a Refusal
	Plain   bool     `json:"plain,omitempty"`   // it is any HTTP service, as VirtualServices have them
	Port    uint16   `json:"port,omitempty"`    // of the gateway
	Server  string   `json:"server,omitempty"`  // of the Istio Gateway
	Remark  string   `json:"remark,omitempty"`  // what is to be known before the rest is read
	Refusal *Because `json:"refusal,omitempty"` // why it is not served at all

	Operation string             `json:"operation,omitempty"` // empty: the path is none
	Rule      *ExplainedRule     `json:"rule,omitempty"`      // nil: none takes it
	Passed    []PassedOver       `json:"passed"`              // the rules before it, or all of them
	Backends  []ExplainedBackend `json:"backends"`            // those of the first priority first
	Does      []string           `json:"does,omitempty"`      // beside sending it to a backend, as in the compiled table
	Timeouts  *ExplainedTimeouts `json:"timeouts,omitempty"`
	Retries   *ExplainedRetries  `json:"retries,omitempty"`
	MaxBody   int64              `json:"maxBody,omitempty"` // bytes
}

// Because is a Refusal as JSON has it.
type Because struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
}

// ExplainedRule is the rule that takes a request.
type ExplainedRule struct {
	Owner  string `json:"owner"` // KIND NAMESPACE/NAME: the route, or the provider without one
	Name   string `json:"name,omitempty"`
	Number int    `json:"number,omitempty"` // its place in the owner, from 1; 0: a provider's only one
	Why    string `json:"why"`
}

// PassedOver is a rule that does not take it.
type PassedOver struct {
	Owner  string `json:"owner"`
	Name   string `json:"name,omitempty"`
	Number int    `json:"number,omitempty"`
	Why    string `json:"why"`
}

// ExplainedBackend is a provider or server that calls may go to.
type ExplainedBackend struct {
	Priority   int      `json:"priority"` // 0 is first
	Weight     uint32   `json:"weight"`
	Share      float64  `json:"share"`              // of the calls that its priority gets, 0 to 1
	SelectedBy string   `json:"selectedBy"`         // in words
	Provider   string   `json:"provider,omitempty"` // KIND NAMESPACE/NAME
	Model      string   `json:"model,omitempty"`    // that is sent; empty: the app's own
	URL        string   `json:"url,omitempty"`
	Authority  string   `json:"authority,omitempty"` // the Host header, where it is not the URL's
	Key        string   `json:"key,omitempty"`       // its name, with the share where there are several; empty: the app's own credentials pass
	KeyIn      string   `json:"keyIn,omitempty"`     // the header
	Servers    string   `json:"servers,omitempty"`   // what one is chosen from
	Balance    string   `json:"balance,omitempty"`   // how
	Refusal    *Because `json:"refusal,omitempty"`
}

// ExplainedTimeouts are Timeouts in words; "none" is no limit.
type ExplainedTimeouts struct {
	Request    string `json:"request"`
	FirstToken string `json:"firstToken"`
	Idle       string `json:"idle"`
}

// ExplainedRetries are Retries in words.
type ExplainedRetries struct {
	Attempts int      `json:"attempts"` // after the first
	On       []string `json:"on"`
}
