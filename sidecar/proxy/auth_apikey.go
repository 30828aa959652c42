package proxy

import "remora.dev/remora/sidecar/routing"

// appendAPIKey adds the key in the form that Azure OpenAI wants.
func appendAPIKey(dst []byte, key routing.Key) []byte {
	return append(append(append(dst, "api-key: "...), key.Reveal()...), "\r\n"...)
}
