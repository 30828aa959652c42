package proxy

import "remora.dev/remora/sidecar/routing"

// appendBearer adds the key in the form of RFC 6750, which is OpenAI's.
func appendBearer(dst []byte, key routing.Key) []byte {
	return append(append(append(dst, "Authorization: Bearer "...), key.Reveal()...), "\r\n"...)
}
