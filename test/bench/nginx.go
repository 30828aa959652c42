package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"remora.dev/remora/test/bench/pinned"
)

// One process without a master, so that all of its time and memory is counted once.
// Bodies of 64 KiB stay in memory; connections are never recycled during a round.
const nginxConfig = `%[6]s
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
    location / {%[7]s
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

func (p place) writeNginx(preamble, location string) (file string, err error) {
	file = filepath.Join(p.folder, "nginx.conf")
	text := fmt.Sprintf(nginxConfig, p.folder, p.listenAddress(), p.upstreamAddress(), providerHost, p.authorityFile, preamble, location)
	return file, os.WriteFile(file, []byte(text), 0o600)
}

func nginxCommand(preamble, location string) func(string, place) ([]string, error) {
	return func(binary string, at place) ([]string, error) {
		file, err := at.writeNginx(preamble, location)
		return []string{binary, "-p", at.folder, "-e", "stderr", "-c", file}, err
	}
}

func nginx() contestant {
	return contestant{
		name:    "nginx",
		find:    func() (string, string, error) { return pinned.Installed("nginx", "-v") },
		command: nginxCommand("", ""),
		caller:  configuredCaller,
	}
}

// What editing the model and adding the key takes in nginx: to decode the body and to encode it again.
const (
	luaModules  = "/usr/lib/nginx/modules/"
	luaPreamble = "load_module " + luaModules + "ndk_http_module.so; load_module " + luaModules + "ngx_http_lua_module.so;"
	luaEdit     = `
      access_by_lua_block {
        local cjson = require "cjson"
        ngx.req.read_body()
        local body = cjson.decode(ngx.req.get_body_data())
        body.model = "` + providerModel + `"
        ngx.req.set_body_data(cjson.encode(body))
        ngx.req.set_header("Authorization", "Bearer ` + providerKey + `")
      }`
)

func nginxLua() contestant {
	return contestant{
		name: "nginx+lua",
		find: func() (string, string, error) {
			binary, version, err := pinned.Installed("nginx", "-v")
			if err != nil {
				return "", "", err
			}
			if _, err := os.Stat(luaModules + "ngx_http_lua_module.so"); err != nil {
				return "", "", errors.New("nginx's module for Lua is not installed (`.ci/prerequisites bench` installs it)")
			}
			if found, _ := filepath.Glob("/usr/lib/*/lua/5.1/cjson.so"); len(found) == 0 {
				return "", "", errors.New("cjson for Lua is not installed (`.ci/prerequisites bench` installs it)")
			}
			return binary, version + ", edits the model with Lua's cjson", nil
		},
		command: nginxCommand(luaPreamble, luaEdit),
		caller:  unawareCaller,
	}
}
