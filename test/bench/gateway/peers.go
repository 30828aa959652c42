package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"remora.dev/remora/test/bench/pinned"
)

// One process without a master, so that all of its time and memory is counted once.
const nginxConfig = `daemon off;
master_process off;
pid %[1]s/nginx.pid;
error_log stderr warn;
events { worker_connections 8192; }
http {
  access_log off;
  client_body_temp_path %[1]s/nginx-body;
  proxy_temp_path %[1]s/nginx-proxy;
  fastcgi_temp_path %[1]s/nginx-fastcgi;
  uwsgi_temp_path %[1]s/nginx-uwsgi;
  scgi_temp_path %[1]s/nginx-scgi;
  client_body_buffer_size 256k;
  keepalive_timeout 600s;
  keepalive_requests 100000000;
  upstream api {
    %[3]s
%[4]s    keepalive 1024;
    keepalive_timeout 600s;
    keepalive_requests 100000000;
  }
  server {
    listen %[2]s backlog=1024;
    location / {
      proxy_pass http://api;
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header Connection "";
      proxy_read_timeout 600s;
    }
  }
}
`

func nginx() contestant {
	words := map[policy]string{roundRobin: "", leastRequest: "least_conn;", random: "random;"}
	return contestant{
		program: "nginx",
		find:    func() (string, string, error) { return pinned.Installed("nginx", "-v") },
		command: func(binary string, p policy, at place) ([]string, error) {
			var list strings.Builder
			for _, s := range at.servers {
				fmt.Fprintf(&list, "    server %s;\n", s)
			}
			file := filepath.Join(at.folder, "nginx.conf")
			err := os.WriteFile(file, fmt.Appendf(nil, nginxConfig, at.folder, at.address(), words[p], list.String()), 0o600)
			return []string{binary, "-p", at.folder, "-e", "stderr", "-c", file}, err
		},
	}
}

// http-no-delay, because by default haproxy may hold a chunk back to join it with the next.
const haproxyConfig = `global
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
  bind %s
  default_backend api
backend api
  balance %s
%s`

func haproxy() contestant {
	// random draws two by default and takes the one with fewer calls, which is what LEAST_REQUEST means elsewhere; its leastconn
	// looks at all of them.
	words := map[policy]string{roundRobin: "roundrobin", leastRequest: "leastconn", random: "random(1)"}
	return contestant{
		program: "haproxy",
		find:    func() (string, string, error) { return pinned.Installed("haproxy", "-v") },
		command: func(binary string, p policy, at place) ([]string, error) {
			var list strings.Builder
			for i, s := range at.servers {
				fmt.Fprintf(&list, "  server s%d %s pool-purge-delay 600s\n", i, s)
			}
			file := filepath.Join(at.folder, "haproxy.cfg")
			err := os.WriteFile(file, fmt.Appendf(nil, haproxyConfig, at.address(), words[p], list.String()), 0o600)
			return []string{binary, "-db", "-f", file}, err
		},
	}
}
