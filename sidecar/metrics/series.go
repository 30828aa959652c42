package metrics

import (
	"cmp"
	"strings"
	"sync/atomic"

	"remora.dev/remora/sidecar/record"
	"remora.dev/remora/sidecar/routing"
)

// labels are what a request is counted by. Two that are not equal are not shown alike.
type labels struct {
	operation, system string
	provider, owner   routing.Ref // without their kinds, which are not shown
	rule              string
	request, response string // models
}

func labelsFrom(r *record.Record) labels {
	k := labels{
		operation: r.Operation, system: SystemOf(r.Endpoint), provider: r.Provider, owner: r.RuleOwner, rule: r.Rule,
		request: cmp.Or(r.RequestModel, r.AskedModel), response: r.ResponseModel,
	}
	k.provider.Kind, k.owner.Kind = "", ""
	if k.system == "" {
		k.system = k.provider.Name
	}
	return k
}

// own makes a copy that shares no memory with a record.
func (k labels) own() labels {
	for _, s := range []*string{
		&k.operation, &k.system, &k.provider.Namespace, &k.provider.Name, &k.owner.Namespace, &k.owner.Name, &k.rule, &k.request, &k.response,
	} {
		*s = strings.Clone(*s)
	}
	return k
}

func (k *labels) text() string {
	return labelsOf(
		"gen_ai_operation_name", k.operation, "gen_ai_provider_name", k.system, "gen_ai_request_model", k.request,
		"gen_ai_response_model", k.response, "provider", path(k.provider), "rule", record.RuleText(k.owner, k.rule),
	)
}

func path(r routing.Ref) string {
	if r.Namespace == "" {
		return r.Name
	}
	return r.Path()
}

// beyond is what is counted where there are label sets enough.
var beyond = labels{operation: other, system: other, provider: routing.Ref{Name: other}, rule: other, request: other, response: other}

// A series is what is counted of one label set.
type series struct {
	labels labels
	text   string
	used   atomic.Int64 // when, in seconds since 1970

	usage      [2][2]lazy // by precision and direction
	firstChunk lazy
	perChunk   lazy
	durations  atomic.Pointer[[]duration] // one for each error
	parts      *parts
	cost       atomic.Pointer[cost] // that of the last currency
	asm        atomic.Pointer[asm]  // those of the last host
}

// A duration is how long requests took that ended with the same error; empty: with none.
type duration struct {
	err string
	*histogram
}

// ended gives what there is of durations.
func (of *series) ended() []duration {
	if all := of.durations.Load(); all != nil {
		return *all
	}
	return nil
}

// precisions and directions are the values of labels, as series.usage has them.
var (
	precisions = [...]string{"exact", "estimated"}
	directions = [...]string{"input", "output"}
)

// parts are tokens that are counted as input or output already. There is one for a model of a provider, whatever rule led there.
type parts struct {
	text             string // empty: there is no provider, and so no tokens
	cached, reasoned atomic.Int64
	users            int // label sets
}

// perModel is what parts and cost are counted by.
type perModel struct {
	provider routing.Ref
	model    string
}

func (m *perModel) text(more ...string) string {
	return labelsOf(append([]string{"provider", path(m.provider), "model", m.model}, more...)...)
}

type costKey struct {
	perModel
	currency string
}

type cost struct {
	key  costKey
	text string
	used atomic.Int64
	sum  float
}

type asmKey struct{ host, model string }

type asm struct {
	key                asmKey
	text               string
	provider           routing.Ref
	used               atomic.Int64
	prompt, completion atomic.Int64
}

// errorOf gives the value of error_type: one word of a closed list. Of a provider's own error that was passed on, that is its status.
func errorOf(r *record.Record) string {
	switch {
	case r.Code != "" && (r.Code != routing.UpstreamRefusal || r.Status < 400):
		return string(r.Code)
	case r.Status < 400:
		return ""
	}
	for i := range statuses {
		if statuses[i].status == r.Status {
			return statuses[i].text
		}
	}
	if r.Status < 500 {
		return "4xx"
	}
	return "5xx"
}

// statuses are the answers of providers that say something by themselves. 529 is Anthropic's for too much load.
var statuses = [...]struct {
	status int
	text   string
}{
	{400, "400"}, {401, "401"}, {402, "402"}, {403, "403"}, {404, "404"}, {408, "408"}, {409, "409"}, {413, "413"}, {422, "422"}, {429, "429"},
	{500, "500"}, {502, "502"}, {503, "503"}, {504, "504"}, {529, "529"},
}
