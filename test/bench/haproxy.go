package main

import (
	"fmt"
	"os"
	"path/filepath"

	"remora.dev/remora/test/bench/pinned"
)

// http-no-delay, because by default haproxy may hold a chunk back to join it with the next.
const haproxyConfig = `
global
  nbthread 1
  maxconn 8192
defaults
  mode http
  timeout connect 10s
  timeout client 600s
  timeout server 600s
  timeout http-keep-alive 600s
  option http-no-delay
  http-reuse always
frontend app
  bind %[1]s
  default_backend provider
backend provider
  server provider %[2]s ssl verify required ca-file %[4]s sni str(%[3]s) verifyhost %[3]s ssl-min-ver TLSv1.3 pool-purge-delay 600s
`

func haproxy() contestant {
	return contestant{
		name: "haproxy",
		find: func() (string, string, error) { return pinned.Installed("haproxy", "-v") },
		command: func(binary string, at place) ([]string, error) {
			file := filepath.Join(at.folder, "haproxy.cfg")
			text := fmt.Sprintf(haproxyConfig, at.listenAddress(), at.upstreamAddress(), providerHost, at.authorityFile)
			err := os.WriteFile(file, []byte(text), 0o600)
			return []string{binary, "-db", "-f", file}, err
		},
		caller: configuredCaller,
	}
}
