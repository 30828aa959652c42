package proxy

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"github.com/valyala/fasthttp"

	"remora.dev/remora/sidecar/routing"
)

// failure is an error that the app is told about. Its message says what to do and holds no key; cause
// is for the log only.
type failure struct {
	code       routing.Code
	message    string
	cause      error
	retryAfter int // seconds; 0: not said
	as         int // the status, in place of the code's own
}

func fail(code routing.Code, format string, args ...any) *failure {
	return &failure{code: code, message: fmt.Sprintf(format, args...)}
}

func (f *failure) because(err error) *failure {
	f.cause = err
	return f
}

// Error words the failure for the log.
func (f *failure) Error() string {
	if f.cause != nil {
		return fmt.Sprintf("%s: %s: %v", f.code, f.message, f.cause)
	}
	return fmt.Sprintf("%s: %s", f.code, f.message)
}

// statuses maps every code that an app can meet to its HTTP status. A code that is missing here is a
// fault of the sidecar: 500.
var statuses = map[routing.Code]int{
	routing.InvalidRequest:       fasthttp.StatusBadRequest,
	routing.InvalidJSON:          fasthttp.StatusBadRequest,
	routing.DuplicateKey:         fasthttp.StatusBadRequest,
	routing.UnsupportedEncoding:  fasthttp.StatusUnsupportedMediaType,
	routing.RequestTooLarge:      fasthttp.StatusRequestEntityTooLarge,
	routing.RequestTimeout:       fasthttp.StatusRequestTimeout,
	routing.NoRuleMatches:        fasthttp.StatusNotFound,
	routing.HostNotServed:        fasthttp.StatusNotFound,
	routing.ServiceNotFound:      fasthttp.StatusServiceUnavailable,
	routing.SubsetNotFound:       fasthttp.StatusServiceUnavailable,
	routing.ServiceNotExported:   fasthttp.StatusServiceUnavailable,
	routing.ServersMissing:       fasthttp.StatusServiceUnavailable,
	routing.GatewayNotFound:      fasthttp.StatusServiceUnavailable,
	routing.PortConflict:         fasthttp.StatusServiceUnavailable,
	routing.CertificateNotFound:  fasthttp.StatusServiceUnavailable,
	routing.KeyNotAtGateway:      fasthttp.StatusServiceUnavailable,
	routing.HostConflict:         fasthttp.StatusServiceUnavailable,
	routing.NotSupported:         fasthttp.StatusServiceUnavailable,
	routing.InvalidValue:         fasthttp.StatusServiceUnavailable,
	routing.FaultInjected:        fasthttp.StatusServiceUnavailable,
	routing.OperationNotFound:    fasthttp.StatusNotFound,
	routing.MethodNotAllowed:     fasthttp.StatusMethodNotAllowed,
	routing.UpgradeRequired:      fasthttp.StatusUpgradeRequired,
	routing.MisdirectedRequest:   fasthttp.StatusMisdirectedRequest,
	routing.NotForThisWorkload:   fasthttp.StatusForbidden,
	routing.DirectConnection:     fasthttp.StatusForbidden,
	routing.CallerNotAllowed:     fasthttp.StatusForbidden,
	routing.HostRetired:          fasthttp.StatusServiceUnavailable,
	routing.ProviderNotFound:     fasthttp.StatusServiceUnavailable,
	routing.SecretNotFound:       fasthttp.StatusServiceUnavailable,
	routing.SecretInvalid:        fasthttp.StatusServiceUnavailable,
	routing.InvalidConfiguration: fasthttp.StatusServiceUnavailable,
	routing.ConfigurationUnread:  fasthttp.StatusServiceUnavailable,
	routing.Overloaded:           fasthttp.StatusServiceUnavailable,
	routing.ShuttingDown:         fasthttp.StatusServiceUnavailable,
	routing.KeyRevoked:           fasthttp.StatusServiceUnavailable,
	routing.ConnectFailure:       fasthttp.StatusBadGateway,
	routing.UntrustedCertificate: fasthttp.StatusBadGateway,
	routing.UpstreamReset:        fasthttp.StatusBadGateway,
	routing.UpstreamInvalid:      fasthttp.StatusBadGateway,
	routing.FirstTokenTimeout:    fasthttp.StatusGatewayTimeout,
	routing.IdleTimeout:          fasthttp.StatusGatewayTimeout,
	routing.DeadlineExceeded:     fasthttp.StatusGatewayTimeout,
}

func (f *failure) status() int {
	if f.as != 0 {
		return f.as
	}
	if s, ok := statuses[f.code]; ok {
		return s
	}
	return fasthttp.StatusInternalServerError
}

// body is the failure in the shape of OpenAI's errors.
func (f *failure) body() []byte {
	kind := "api_error"
	if f.status() < 500 {
		kind = "invalid_request_error"
	}
	var e struct {
		Error struct {
			Message string       `json:"message"`
			Type    string       `json:"type"`
			Param   *string      `json:"param"`
			Code    routing.Code `json:"code"`
		} `json:"error"`
	}
	e.Error.Message, e.Error.Type, e.Error.Code = "Remora: "+f.message, kind, f.code
	b, _ := json.Marshal(e) // strings always marshal
	return b
}

// write answers a request with the failure. SDKs try again by themselves on most errors from 408 on;
// x-should-retry tells them where that can help and where it cannot. Where it may, it is not set, and
// they do as they would without the sidecar.
func (f *failure) write(resp *fasthttp.Response) {
	resp.Header.SetStatusCode(f.status())
	resp.Header.SetContentType("application/json")
	if f.code == routing.UpgradeRequired { // RFC 9110, section 15.5.22, wants it
		resp.Header.Set(fasthttp.HeaderConnection, "Upgrade")
		resp.Header.Set(fasthttp.HeaderUpgrade, websocket)
	}
	switch {
	case f.retryAfter > 0:
		resp.Header.Set(fasthttp.HeaderRetryAfter, strconv.Itoa(f.retryAfter))
		resp.Header.Set(headerShouldRetry, "true")
	case !f.passing():
		resp.Header.Set(headerShouldRetry, "false")
	}
	resp.SetBody(f.body())
}

// passing tells whether the same request may succeed a moment later.
func (f *failure) passing() bool {
	return slices.Contains([]routing.Code{
		routing.ConnectFailure, routing.UpstreamReset, routing.UpstreamInvalid, routing.FirstTokenTimeout, routing.RequestTimeout,
		routing.KeyRevoked,
	}, f.code)
}

const headerShouldRetry = "X-Should-Retry"
