package otlp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"time"

	"github.com/go-logr/logr"

	"remora.dev/remora/sidecar/routing"
)

// sayPause is how often the log says at most that a collector is well, or is not.
const sayPause = 10 * time.Second

// maxWhat is how much of an error is in the log: some quote what the collector has answered.
const maxWhat = 200

// failure tells what is wrong with a collector that has given no answer.
func failure(err error) result {
	r := result{code: routing.UpstreamInvalid, reason: droppedUnreachable, again: true}
	var (
		dns     *net.DNSError
		dial    *net.OpError
		refused *tls.CertificateVerificationError
		unknown x509.UnknownAuthorityError
	)
	switch {
	case errors.As(err, &refused), errors.As(err, &unknown):
		r.code = routing.UntrustedCertificate
	case errors.Is(err, context.DeadlineExceeded), timeout(err):
		r.code = routing.DeadlineExceeded
	case errors.As(err, &dns), errors.As(err, &dial) && dial.Op == "dial":
		r.code = routing.ConnectFailure
	}
	r.what = err.Error()
	if len(r.what) > maxWhat {
		r.what = r.what[:maxWhat] + " …"
	}
	return r
}

func timeout(err error) bool {
	var net net.Error
	return errors.As(err, &net) && net.Timeout()
}

// trouble is what the log knows of the collector. One goroutine uses it at a time.
type trouble struct {
	code routing.Code // that was said last; empty: none, or that it is over
	at   time.Time
}

// say writes a line where that is news.
func (t *trouble) say(log logr.Logger, to *target, r result, dropped int) {
	if r.code == "" && r.rejected > 0 {
		r.code, r.what = routing.UpstreamRefusal, "it took a request, but not all spans of it"
	}
	if r.code == t.code || time.Since(t.at) < sayPause {
		return
	}
	t.code, t.at = r.code, time.Now()
	if r.code == "" {
		log.Info("the collector takes spans again", "collector", to.host())
		return
	}
	log.Info("the collector does not take spans: requests go on without", "code", string(r.code), "collector", to.host(), "reason", r.what, "dropped", dropped)
}
