package routing

import (
	"fmt"
	"strconv"
	"strings"

	"remora.dev/remora/apis/istio"
)

// maxAttempts is how many attempts may follow the first at most.
const maxAttempts = 10

// judgeRetries compiles what a route tries again. Without a word on it, it is what LLMRoutes try again by default.
func (v *virtual) judgeRetries(r *virtualRoute, from *istio.HTTPRetry) {
	r.retries = defaultRetries
	if from == nil {
		return
	}
	at := r.field + ".retries"
	r.retried = true
	r.retries.Attempts = int(from.Attempts)
	if from.Attempts < 0 {
		v.refuse(r, at+".attempts", "%d is negative: use 0 for none", from.Attempts)
	} else if from.Attempts > maxAttempts {
		v.warn(FieldNotHonoured, at+".attempts", "%d is more than there ever are: it is %d", from.Attempts, maxAttempts)
		r.retries.Attempts = maxAttempts
	}
	if from.RetryOn != "" {
		r.retries = Retries{Attempts: r.retries.Attempts}
		for word := range strings.SplitSeq(from.RetryOn, ",") {
			if word = strings.TrimSpace(word); word != "" && !r.retries.setIstio(word) {
				v.warn(FieldNotHonoured, at+".retryOn", "%s: use connect-failure, reset, reset-before-request, gateway-error, 5xx, 429 or 503", notRetried(word))
			}
		}
	}
	if d := from.PerTryTimeout; d != nil {
		if d.Duration < 0 {
			v.refuse(r, at+".perTryTimeout", "%s is negative: use a duration such as 30s, or 0s for no limit", d.Duration)
		} else if d.Duration > 0 {
			r.timeouts.FirstToken = d.Duration
			// As with Envoy, what takes too long counts as a gateway's error.
			r.retries.FirstToken = r.retries.GatewayError || r.retries.ServerError || r.retries.Reset
		}
	}
	if ignore := from.RetryIgnorePreviousHosts; ignore != nil && !*ignore {
		v.warn(FieldNotHonoured, at+".retryIgnorePreviousHosts", "false is not honoured: another attempt goes to another server where there is one")
	}
}

// setIstio turns on what a word of Istio's means here; false means that there is no such thing.
func (r *Retries) setIstio(word string) bool {
	switch word {
	case "5xx":
		r.ServerError, r.Reset, r.ConnectFailure = true, true, true
	case "gateway-error":
		r.GatewayError = true
	case "reset":
		r.Reset, r.ConnectFailure = true, true
	case "connect-failure", "reset-before-request": // before anything was sent
		r.ConnectFailure = true
	case "429", "503":
		r.RateLimited = true
	case "retriable-status-codes": // which are listed beside it
	default:
		return false
	}
	return true
}

func notRetried(word string) string {
	switch word {
	case "refused-stream", "http3-post-connect-failure":
		return word + " is not honoured, and never happens with HTTP/1.1"
	case "cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable":
		return word + " is not honoured, and is of gRPC only"
	}
	if _, err := strconv.Atoi(word); err == nil {
		return fmt.Sprintf("status %s by itself is not honoured", word)
	}
	return fmt.Sprintf("%q is not honoured", presentable(word))
}
