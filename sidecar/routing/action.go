package routing

import (
	"regexp"
	"time"
)

// Action is what a rule does to a call beside sending it to a backend. A rule has none where nothing is to be done.
type Action struct {
	Redirect *Redirect // the call is answered by it, and reaches no backend
	Direct   *Direct   // likewise
	Fault    Fault
	Mirrors  []Mirror
	Rewrite  Rewrite
	Headers  HeaderEdits
}

// Redirect is an answer that sends the client elsewhere.
type Redirect struct {
	Status    int    // 301, 302, 303, 307 or 308
	Scheme    string // empty: the request's
	Authority string // empty: the request's
	Port      uint16 // 0: see DerivePort
	// DerivePort: the port is the scheme's own; else that of the request stays.
	DerivePort bool
	Path       string // empty: the request's
	Prefix     string // in place of the prefix that matched, if Path is empty
	HasPrefix  bool
}

// Direct is a fixed answer.
type Direct struct {
	Status int
	Body   []byte
}

// Fault is trouble made on purpose. Shares are of 1.
type Fault struct {
	Delay      time.Duration
	DelayShare float64
	Abort      int // status
	AbortShare float64
}

// Mirror gets a copy of calls, whose answer nobody sees.
type Mirror struct {
	Target  *Target
	Refusal *Refusal // set where there is no target; the calls are not mirrored then
	Share   float64  // of 1
}

// Rewrite is what is different about the request at the backend.
type Rewrite struct {
	Authority string // empty: the request's
	Path      string // of an exact match or a prefix that matched: what comes in its place; see HasPath
	HasPath   bool
	Regex     *regexp.Regexp // in place of Path
	Replace   string         // by which Regex's matches are replaced, with \1 for groups
}

// HeaderEdits are changes of headers, in the order remove, set, add. Names are in canonical form.
type HeaderEdits struct {
	Request, Response HeaderEdit
}

// HeaderEdit changes the headers of one direction.
type HeaderEdit struct {
	Remove   []string
	Set, Add []HeaderValue
}

// HeaderValue is a header.
type HeaderValue struct{ Name, Value string }

// Empty tells whether nothing is changed.
func (e *HeaderEdit) Empty() bool { return len(e.Remove)+len(e.Set)+len(e.Add) == 0 }
