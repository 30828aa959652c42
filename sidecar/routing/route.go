package routing

import (
	"errors"
	"fmt"
	"maps"
	"net/textproto"
	"regexp/syntax"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"remora.dev/remora/apis/v1beta1"
)

// HopByHop tells whether a header belongs to one connection only (RFC 9110, section 7.6.1): matching it would
// judge the hop and not the call, and it is not passed on. name is in canonical form, such as Keep-Alive.
func HopByHop[T string | []byte](name T) bool {
	switch string(name) {
	case "Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection",
		"Te", "Trailer", "Transfer-Encoding", "Upgrade":
		return true
	}
	return false
}

// judgeRoute finds what is wrong with a route by itself.
func judgeRoute(f *findings, r *v1beta1.LLMRoute) {
	judgeName(f, r.Name)
	judgeHost(f, "spec.host", r.Spec.Host)
	judgeGateways(f, "spec.gateways", r.Spec.Gateways)
	if n := len(r.Spec.Rules); n > v1beta1.MaxRules {
		f.invalid(InvalidValue, "spec.rules", "has %d entries: at most %d are allowed", n, v1beta1.MaxRules)
	}
	if len(r.Spec.Rules) == 0 {
		f.warn(RuleNeverMatches, "spec.rules", "is empty: every call to %s is answered 404", r.Spec.Host)
	}
	for i := range r.Spec.Rules[:min(len(r.Spec.Rules), v1beta1.MaxRules)] {
		judgeRule(f, fmt.Sprintf("spec.rules[%d]", i), &r.Spec.Rules[i])
	}
	if f.firstInvalid() == nil && expressions(&Objects{Routes: []v1beta1.LLMRoute{*r}}) > maxExpressions {
		f.invalid(InvalidValue, "spec.rules", "has regular expressions that take over %d MiB of memory together: repeat less, use smaller classes of characters, or match prefixes", maxExpressions>>20)
	}
	if f.firstInvalid() == nil {
		judgeReach(f, r.Spec.Rules)
	}
}

func judgeGateways(f *findings, field string, gateways []string) {
	for i, g := range gateways {
		namespace, name, qualified := strings.Cut(g, "/")
		if !qualified {
			namespace, name = f.object.Namespace, g
		}
		if len(validation.IsDNS1123Subdomain(name)) > 0 || qualified && namespace != "." && len(validation.IsDNS1123Label(namespace)) > 0 {
			f.invalid(InvalidValue, fmt.Sprintf("%s[%d]", field, i), "%q names no gateway: write %s for the sidecars, or NAME or NAMESPACE/NAME of an Istio Gateway", presentable(g), v1beta1.GatewayMesh)
		}
	}
	if len(gateways) > 32 {
		f.invalid(InvalidValue, field, "has %d entries: at most 32 are allowed", len(gateways))
	}
}

func judgeRule(f *findings, field string, r *v1beta1.LLMRule) {
	if utf8.RuneCountInString(r.Name) > 253 {
		f.invalid(InvalidValue, field+".name", "is longer than 253 characters: use a shorter name")
	}
	if n := len(r.Matches); n > v1beta1.MaxMatches {
		f.invalid(InvalidValue, field+".matches", "has %d entries: at most %d are allowed", n, v1beta1.MaxMatches)
	}
	for i := range r.Matches {
		judgeMatch(f, fmt.Sprintf("%s.matches[%d]", field, i), &r.Matches[i])
	}
	judgeBackends(f, field+".backendRefs", r.BackendRefs)
	if t := r.Timeouts; t != nil {
		for name, d := range map[string]*metav1.Duration{"request": t.Request, "firstToken": t.FirstToken, "idle": t.Idle} {
			if d != nil && d.Duration < 0 {
				f.invalid(InvalidValue, field+".timeouts."+name, "%s is negative: use a duration such as 30s, or 0s for no limit", d.Duration)
			}
		}
	}
	judgeLimits(f, field+".limits", r.Limits)
	if t := r.Retries; t != nil {
		if t.Attempts != nil && (*t.Attempts < 0 || *t.Attempts > 10) {
			f.invalid(InvalidValue, field+".retries.attempts", "%d is out of range: use 0 to 10", *t.Attempts)
		}
		if len(t.RetryOn) > v1beta1.MaxRetryOn {
			f.invalid(InvalidValue, field+".retries.retryOn", "has %d entries: at most %d are allowed", len(t.RetryOn), v1beta1.MaxRetryOn)
		}
		for i, c := range t.RetryOn {
			if !new(Retries).set(c) {
				f.invalid(InvalidValue, fmt.Sprintf("%s.retries.retryOn[%d]", field, i), "%q is not a reason to try again: use connect-failure, rate-limited, reset, gateway-error, 5xx or first-token", c)
			}
		}
	}
}

func judgeMatch(f *findings, field string, m *v1beta1.LLMRequestMatch) {
	if n := len(m.Headers); n > v1beta1.MaxHeaderMatches {
		f.invalid(InvalidValue, field+".headers", "has %d entries: at most %d are allowed", n, v1beta1.MaxHeaderMatches)
	}
	for _, name := range slices.Sorted(maps.Keys(m.Headers)) {
		at := field + ".headers[" + name + "]"
		switch {
		case !isToken(name):
			f.invalid(InvalidValue, at, "%q is not the name of a header: use letters, digits and hyphens", name)
		case HopByHop(textproto.CanonicalMIMEHeaderKey(name)):
			f.invalid(InvalidValue, at, "%s belongs to the connection, not to the call: match another header", name)
		}
		judgeString(f, at, m.Headers[name])
	}
	if m.Model != nil {
		judgeString(f, field+".model", *m.Model)
	}
	judgeLabels(f, field+".sourceLabels", m.SourceLabels)
	judgeGateways(f, field+".gateways", m.Gateways)
}

// isToken tells whether s is a token of RFC 9110, section 5.6.2.
func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
	})
}

func judgeString(f *findings, field string, m v1beta1.StringMatch) {
	given := 0
	for name, s := range map[string]*string{"exact": m.Exact, "prefix": m.Prefix, "regex": m.Regex} {
		if s == nil {
			continue
		}
		given++
		if utf8.RuneCountInString(*s) > 1024 {
			f.invalid(InvalidValue, field+"."+name, "is longer than 1024 characters: use a prefix or a regex")
		}
		if name != "regex" { // which has a use for $ and {}
			warnVariable(f, field+"."+name, *s)
		}
	}
	if given > 1 {
		f.invalid(InvalidValue, field, "gives more than one of exact, prefix and regex: keep one")
	}
	if m.Regex == nil {
		return
	}
	parsed, err := syntax.Parse(*m.Regex, syntax.Perl)
	var bad *syntax.Error
	if errors.As(err, &bad) {
		at := len(*m.Regex) // an error without a place is one of the end
		if bad.Expr != "" {
			at = strings.Index(*m.Regex, bad.Expr) + 1
		}
		f.invalid(InvalidValue, field+".regex", "is not a regular expression (RE2): %s at character %d", bad.Code, at) // it may hold a credential
	} else if steps(parsed) > maxSteps {
		f.invalid(InvalidValue, field+".regex", "takes over %d steps: repeat less, or match a prefix", maxSteps)
	}
}

// maxSteps bounds the memory of one regular expression: {1000} makes a thousand of what it follows, and
// a route may have thousands of expressions.
const maxSteps = 2000

// steps estimates the size of a compiled expression.
func steps(re *syntax.Regexp) int {
	n := 1
	if re.Op == syntax.OpLiteral {
		n += len(re.Rune)
	}
	for _, sub := range re.Sub {
		n += steps(sub)
	}
	if re.Op == syntax.OpRepeat {
		n *= max(re.Min, re.Max, 1)
	}
	return n
}

func judgeBackends(f *findings, field string, refs []v1beta1.LLMBackendRef) {
	if len(refs) == 0 {
		f.invalid(InvalidValue, field, "is required: name at least one providerHost")
	}
	if n := len(refs); n > v1beta1.MaxBackends {
		f.invalid(InvalidValue, field, "has %d entries: at most %d are allowed", n, v1beta1.MaxBackends)
	}
	with := 0
	total := map[int32]int64{}
	for i := range refs {
		b, at := &refs[i], fmt.Sprintf("%s[%d]", field, i)
		judgeBackend(f, at, b)
		if b.Weight == nil {
			total[b.Priority]++
			continue
		}
		with++
		total[b.Priority] += max(0, int64(*b.Weight))
		if *b.Weight < 0 {
			f.invalid(InvalidValue, at+".weight", "%d is negative: use 0 for no traffic", *b.Weight)
			total[b.Priority]++ // one fault, one message
		} else if *b.Weight > maxWeight {
			f.invalid(InvalidValue, at+".weight", "%d is over %d: use smaller numbers in the same proportion", *b.Weight, maxWeight)
		}
	}
	if with != 0 && with != len(refs) {
		f.invalid(InvalidValue, field, "%d of %d entries have a weight: give every one a weight, or none", with, len(refs))
	}
	for _, p := range slices.Sorted(maps.Keys(total)) {
		if total[p] == 0 {
			f.invalid(InvalidValue, field, "every weight of priority %d is 0, so nothing could answer: give one of them more", p)
		}
	}
}

func judgeBackend(f *findings, at string, b *v1beta1.LLMBackendRef) {
	switch {
	case b.BackendRef != nil && b.ProviderHost != "":
		f.invalid(InvalidValue, at, "has both providerHost and backendRef: keep one")
	case b.BackendRef != nil:
		judgeBackendRef(f, at+".backendRef", b.BackendRef)
	case b.ProviderHost == "":
		f.invalid(InvalidValue, at, "has neither providerHost nor backendRef: name the host of an LLMProvider in providerHost, or a Service in backendRef")
	default:
		judgeHost(f, at+".providerHost", b.ProviderHost)
	}
	if b.HostRewrite != "" {
		judgeHost(f, at+".hostRewrite", b.HostRewrite)
	}
	if b.Priority < 0 || b.Priority > 100 {
		f.invalid(InvalidValue, at+".priority", "%d is out of range: use 0 to 100", b.Priority)
	}
}

// set turns one reason on; false means that there is no such reason.
func (r *Retries) set(c v1beta1.RetryCondition) bool {
	on, ok := map[v1beta1.RetryCondition]*bool{
		v1beta1.RetryConnectFailure: &r.ConnectFailure,
		v1beta1.RetryRateLimited:    &r.RateLimited,
		v1beta1.RetryReset:          &r.Reset,
		v1beta1.RetryGatewayError:   &r.GatewayError,
		v1beta1.Retry5xx:            &r.ServerError,
		v1beta1.RetryFirstToken:     &r.FirstToken,
	}[c]
	if ok {
		*on = true
	}
	return ok
}

func timeoutsOf(t *v1beta1.Timeouts) Timeouts {
	out := defaultTimeouts
	if t == nil {
		return out
	}
	for _, f := range []struct {
		from *metav1.Duration
		to   *time.Duration
	}{{t.Request, &out.Request}, {t.FirstToken, &out.FirstToken}, {t.Idle, &out.Idle}} {
		if f.from != nil {
			*f.to = f.from.Duration
		}
	}
	return out
}

func retriesOf(r *v1beta1.Retries) Retries {
	if r == nil {
		return defaultRetries
	}
	out := Retries{Attempts: DefaultAttempts}
	if r.Attempts != nil {
		out.Attempts = int(*r.Attempts)
	}
	if r.RetryOn == nil {
		out.ConnectFailure, out.RateLimited = true, true
	}
	for _, c := range r.RetryOn {
		out.set(c)
	}
	return out
}
