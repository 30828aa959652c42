package watch

import (
	"errors"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	clienttransport "k8s.io/client-go/transport"
)

// attempt is what happened to the connection of one request.
type attempt struct{ err error }

type attemptKey struct{}

// transport tells attempts why they failed, and bounds answers that are no streams.
type transport struct{ http.RoundTripper }

// RoundTrip sends a request.
func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := t.RoundTripper.RoundTrip(r)
	if err == nil && (r.URL.Query().Get("watch") == "" || res.StatusCode != http.StatusOK) {
		res.Body = http.MaxBytesReader(nil, res.Body, maxSize) // client-go reads it as a whole
	}
	if try, ok := r.Context().Value(attemptKey{}).(*attempt); ok {
		try.err = err
	}
	return res, err
}

// tokenFrom has requests bear the token in a file, which is read every minute, and before the next request where the API server has
// refused it: by then the kubelet may have brought another one.
func tokenFrom(file string) clienttransport.WrapperFunc {
	return clienttransport.ResettableTokenSourceWrapTransport(clienttransport.NewCachedFileTokenSource(file))
}

// opaque hides those errors from the Reflector on which it would wait, at other times than are good here and without
// an end by its context.
func opaque(err error) error {
	if utilnet.IsConnectionRefused(err) || apierrors.IsTooManyRequests(err) || apierrors.IsInternalError(err) {
		return errors.New(err.Error())
	}
	return err
}
