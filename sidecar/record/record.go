// Package record is what is known of a request when it is over: the one thing that metrics, access log and traces are made of, so that
// they cannot disagree. It has no prompt and no answer, but in a Capture.
package record

import (
	"strings"
	"time"

	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/trace"
)

// Record is one request of an app for an owned host. It is reused: who is told of it keeps nothing of it.
type Record struct {
	Start  time.Time // when its head had been read
	Method string
	Host   string // as the configuration names it; of a request that is for none, as it was called
	Path   string // without the query, of which keys may be a part
	Client string // IP address of who called, at a gateway; empty in a sidecar

	RuleOwner routing.Ref // the route, or the provider without one; zero: no rule matched
	Rule      string      // its name, or "#2" by its place
	Provider  routing.Ref // the one that answered, or was tried last; zero: none
	Endpoint  string      // HOST:PORT of the provider
	Server    string      // ADDRESS:PORT that was connected to
	Key       string      // its name, as in routing.Credential; empty: none was sent

	Operation     string // routing.Operation.Name; "other" where the path is none
	Inference     bool   // the operation takes tokens
	AskedModel    string // what the app asked for; empty: nothing
	RequestModel  string // what the provider was asked for
	Configured    bool   // RequestModel is from the configuration, not from the app
	ResponseModel string // what the answer says that it is of; empty: nothing

	Status int          // that the app was given; 0: it left before
	Code   routing.Code // why it was refused, failed or was cut; empty: nothing was wrong
	Cut    Party        // who ended it before it was complete

	Retries   int  // attempts after the first
	Fallbacks int  // of them, those at another provider than the attempt before
	Withheld  bool // an attempt was not made, as the retry budget was spent

	Total      time.Duration // from Start to the end of the answer
	FirstToken time.Duration // from Start to the first content that went to the app; 0: there was none
	Upstream   time.Duration // of Total, what providers took: connecting, waiting for them and reading from them
	Added      time.Duration // of Total, what Remora itself took until the request was on its way and from the answer's first byte until it was passed on: no waiting for the app, a provider, a free connection or a pause between attempts

	RequestBytes, ResponseBytes int64 // of bodies, as the app sent and was sent
	Stream                      bool  // the answer was a stream of events
	Chunks                      int   // events with content that were passed on
	Usage                       Usage
	Cost                        float64 // of Usage, in the currency of telemetry.Prices; 0 where the model has no price
	Priced                      bool    // the model has a price

	Attempts []Attempt

	Trace   trace.Context // of the request's own span; zero: there is none, and the app's passed as it was
	Parent  trace.SpanID  // of the app; zero: the trace begins here
	Shadow  bool          // it is a copy for a mirror, whose answer nobody got
	Capture *Capture      // nil: none was asked for
}

// RuleText is the rule as people find it, in metrics, log and traces: NAMESPACE/NAME of its owner with the rule's name or place, such as
// demo/chat/subscribers or demo/chat#2; empty: no rule matched.
func RuleText(owner routing.Ref, rule string) string {
	switch {
	case owner.Namespace == "" && owner.Name == "":
		return rule
	case rule == "", strings.HasPrefix(rule, "#"):
		return owner.Path() + rule
	}
	return owner.Path() + "/" + rule
}

// Usage is the tokens that a request took. Cached are some of Input, Reasoned some of Output.
type Usage struct {
	Input, Output, Cached, Reasoned int64 // as the provider reported them
	Reported                        bool
	// What is beyond the report, or in its stead where it did not come.
	EstimatedInput, EstimatedOutput int64
	Estimated                       bool // the answer was cut before the report, or went on after it and was cut
	Unreported                      bool // the answer was complete, and there was no report
}

// Attempt is one try at one provider.
type Attempt struct {
	Start     time.Time
	Span      trace.SpanID // its own, that the provider was told of; zero without a trace
	Provider  routing.Ref
	Server    string // ADDRESS:PORT; empty where none was connected to
	Key       string
	Model     string
	Duration  time.Duration // until its answer was complete, or it failed
	FirstByte time.Duration // of the answer; 0: none came
	Status    int           // 0: none came
	Code      routing.Code  // why it failed; empty: it was the one whose answer was passed on
	Reused    bool          // on a connection that was there
}

// Party is who ended an answer early.
type Party string

// Who may do that.
const (
	Nobody   Party = ""
	App      Party = "app"      // it left
	Provider Party = "provider" // it ended the connection, stalled, or answered what is no HTTP
	Remora   Party = "remora"   // a time limit, a revoked key, the end of the sidecar
)

// Capture is the beginning of prompt and answer, as they were sent, with keys masked. Before it is shown to anyone, package accesslog takes
// out more.
type Capture struct {
	Prompt, Answer                   []byte
	PromptTruncated, AnswerTruncated bool
}
