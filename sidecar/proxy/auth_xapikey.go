package proxy

import "remora.dev/remora/sidecar/routing"

// appendXAPIKey adds the key in the form that Anthropic wants.
func appendXAPIKey(dst []byte, key routing.Key) []byte {
	return append(append(append(dst, "x-api-key: "...), key.Reveal()...), "\r\n"...)
}
