package main

import (
	"fmt"
	"os"
	"path/filepath"
)

// One process without a master, so that all of its time and memory is counted once.
// Bodies of 64 KiB stay in memory; connections are never recycled during a round.
const nginxConfig = `
daemon off;
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
  upstream provider {
    server %[3]s;
    keepalive 1024;
    keepalive_timeout 600s;
    keepalive_requests 100000000;
  }
  server {
    listen %[2]s backlog=1024;
    location / {
      proxy_pass https://provider;
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header Connection "";
      proxy_ssl_protocols TLSv1.3;
      proxy_ssl_server_name on;
      proxy_ssl_name %[4]s;
      proxy_ssl_verify on;
      proxy_ssl_trusted_certificate %[5]s;
      proxy_read_timeout 600s;
    }
  }
}
`

func nginx() contestant {
	return contestant{
		name: "nginx",
		find: func() (string, string, error) { return installed("nginx", "-v") },
		command: func(binary string, at place) ([]string, error) {
			file := filepath.Join(at.folder, "nginx.conf")
			text := fmt.Sprintf(nginxConfig, at.folder, at.listenAddress(), at.upstreamAddress(), providerHost, at.authorityFile)
			err := os.WriteFile(file, []byte(text), 0o600)
			return []string{binary, "-p", at.folder, "-e", "stderr", "-c", file}, err
		},
		caller: configuredCaller,
	}
}
