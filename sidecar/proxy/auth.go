package proxy

import "remora.dev/remora/sidecar/routing"

// appendKey adds the provider's key in the header that the provider wants it in. The app's own credentials
// are left out before, whichever header they are in.
func appendKey(dst []byte, t *routing.Target, key routing.Key) []byte {
	switch t.Auth {
	case routing.AuthAPIKey:
		return appendAPIKey(dst, key)
	case routing.AuthXAPIKey:
		return appendXAPIKey(dst, key)
	default:
		return appendBearer(dst, key)
	}
}
