package main

import (
	"errors"
	"net/http"
	"net/http/httputil"
	"net/url"
	"runtime"
	"time"
)

// serveHTTPUtil is the role of what Go's standard library has for the purpose.
//
//	args: LISTEN UPSTREAM CA
func serveHTTPUtil(args []string) error {
	if len(args) != 3 {
		return errors.New("wants the address to listen on, the upstream's, and a CA file")
	}
	authority, err := trust(args[2])
	if err != nil {
		return err
	}
	upstream := &url.URL{Scheme: "https", Host: args[1]}
	server := &http.Server{
		Addr: args[0],
		Handler: &httputil.ReverseProxy{
			Rewrite: func(r *httputil.ProxyRequest) {
				r.SetURL(upstream)
				r.Out.Host = r.In.Host
			},
			FlushInterval: -1, // each read at once
			Transport: &http.Transport{
				TLSClientConfig:     authority,
				MaxIdleConnsPerHost: 4096,
				IdleConnTimeout:     10 * time.Minute,
				DisableCompression:  true,
			},
		},
		ReadHeaderTimeout: time.Minute,
	}
	return server.ListenAndServe()
}

func httputilProxy() contestant {
	return ofOurs("httputil", "httputil", "httputil.ReverseProxy, "+runtime.Version(), configuredCaller)
}
