package launch

const commands = "use proxy, gateway, check, version or help, such as: sidecar proxy --config config/samples/asm"

// Usage teaches the command line.
const Usage = `sidecar: sends an app's plain HTTP calls to LLM providers, with path, model, key and HTTPS filled in.

  sidecar proxy --config PATH [flags]   serve apps on this machine, following PATH while it changes
  sidecar proxy [flags]                 the same in a pod, or with --kubeconfig, following the objects in Kubernetes
  sidecar gateway [flags]               take traffic from outside, on the ports and for the hosts of Istio Gateways
  sidecar check --config PATH           print every problem of a configuration; exit 1 if something is invalid
  sidecar version                       print the version
  sidecar help                          print this

Try it:

  sidecar check --config config/samples/asm
  sidecar proxy --config config/samples/asm      (envsubst puts your keys in the place of its ${VARIABLES})
  http_proxy=http://127.0.0.1:14001 curl http://dashscope.aliyuncs.com -d '{"messages":[{"role":"user","content":"Hi"}]}'

Flags:

  --config PATH       a file or folder of YAML: LLMProvider, LLMRoute, and the Secrets that they name
  --kubeconfig FILE   follow LLMProviders, LLMRoutes and one Secret in Kubernetes (default, in a pod: its service account)
  --namespace NS      the namespace they are in (default: that of the kubeconfig's context, or of the pod)
  --keys NAME         the Secret with the entries SECRET_KEY for what they name (default remora-sidecar-keys)
  --last-good FILE    where the running configuration is kept, with keys, for a start while Kubernetes is away; no other
                      user may write to its folder, which is made if it is missing
  --listen ADDR       where apps reach the proxy: IP and port, loopback only; may be repeated
                      (default 127.0.0.1:14001 and [::1]:14001)
  --bind IP           the address on which a gateway has the ports of its Istio Gateways (default: all of the machine)
  --mode MODE         redirect: only connections that the pod's redirection turned here are served, and what is sent to
                      --listen itself is refused; none (default): apps may call it
  --admin ADDR        where /config shows the running configuration, loopback only (default 127.0.0.1:14020)
  --health ADDR       where /livez, /readyz and /startupz are answered (default :14021)
  --trusted-ca FILE   PEM certificates of authorities to trust beside those of the system
  --labels k=v,...    labels of the workload that is served, for workloadSelector and sourceLabels; of a gateway, for the
                      selector of Istio Gateways (its default: app=remora-gateway,istio=ingressgateway)
  --labels-file FILE  the same from a file of Kubernetes' downward API, followed while it changes
  --region NAME       where this process is, for servers that are near (default: what its labels or the servers say)
  --zone NAME         likewise
  --log-level LEVEL   debug: also a line for each call, with the provider that answered and the name of its key; info (default)

Both --flag value and --flag=value are understood.
Exit code: 0 all is well, 1 it failed or something is invalid, 2 the command line is wrong.
`
