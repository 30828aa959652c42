package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"remora.dev/remora/test/bench/pinned"
)

const remoraName = "remora"

// What a user writes, and below it what a cluster knows of the Service's pods.
const remoraConfig = `apiVersion: networking.istio.io/v1alpha3
kind: Gateway
metadata: {name: api-gateway, namespace: default}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: %[1]d, name: http, protocol: HTTP}
    hosts: ["*"]
---
apiVersion: networking.istio.io/v1beta1
kind: VirtualService
metadata: {name: api-virtual-service, namespace: default}
spec:
  hosts: [` + host + `]
  gateways: [api-gateway]
  http:
  - route:
    - destination: {host: api-service, port: {number: 80}}
---
apiVersion: networking.istio.io/v1beta1
kind: DestinationRule
metadata: {name: api-destination-rule, namespace: default}
spec:
  host: api-service
  trafficPolicy:
    loadBalancer: {simple: %[2]s}
---
apiVersion: v1
kind: Service
metadata: {name: api-service, namespace: default}
spec:
  selector: {app: large-language-model-api}
  ports: [{name: http, port: 80, targetPort: 8080}]
`

// A slice has one port for all of its endpoints, and the servers here have one each.
const sliceConfig = `---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: api-service-%[1]d, namespace: default, labels: {kubernetes.io/service-name: api-service}}
addressType: IPv4
ports: [{name: http, port: %[3]d, protocol: TCP}]
endpoints: [{addresses: [%[2]s], conditions: {ready: true}}]
`

// remora measures the gateway at path, in file mode.
func remora(path string) contestant {
	return contestant{
		program: remoraName,
		find: func() (string, string, error) {
			binary, err := filepath.Abs(path)
			if err != nil {
				return "", "", err
			}
			said, err := exec.Command(binary, "version").Output()
			if err != nil {
				return "", "", fmt.Errorf("no sidecar there (`make build` makes it): %w", err)
			}
			return binary, strings.TrimSpace(string(said)) + ", Istio's four resources from a file", nil
		},
		command: func(binary string, p policy, at place) ([]string, error) {
			text := fmt.Appendf(nil, remoraConfig, at.port, p)
			for i, s := range at.servers {
				text = fmt.Appendf(text, sliceConfig, i, s.Addr(), s.Port())
			}
			config := filepath.Join(at.folder, "config")
			if err := os.Mkdir(config, 0o700); err != nil {
				return nil, err
			}
			if err := os.WriteFile(filepath.Join(config, "gateway.yaml"), text, 0o600); err != nil {
				return nil, err
			}
			admin, err := pinned.FreePort()
			if err != nil {
				return nil, err
			}
			health, err := pinned.FreePort()
			return []string{binary, "gateway",
				"--config", config,
				"--admin", fmt.Sprintf("127.0.0.1:%d", admin),
				"--health", fmt.Sprintf("127.0.0.1:%d", health),
			}, err
		},
	}
}
