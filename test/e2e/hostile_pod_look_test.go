//go:build linux

package e2e

import (
	"fmt"
	"strings"

	"remora.dev/remora/apis/v1beta1"
)

// looks are attempts to find the key where processes, files and the kernel show something of others.
var looks = []attempt{
	{
		name:   "reads the environment of every process",
		script: `export PLANTED=` + canary + `; sh -c "cat /proc/[0-9]*/environ | tr '\0' '\n'"`,
		says:   []string{canary}, lacks: `KUBERNETES_SERVICE_HOST.*GOMEMLIMIT`,
	},
	{
		name:   "reads the command line of every process",
		script: `sh -c "cat /proc/[0-9]*/cmdline | tr '\0' ' '" ` + canary,
		says:   []string{canary}, lacks: `--last-good`,
	},
	{
		name:   "looks for the sidecar among the processes",
		script: `cat /proc/[0-9]*/comm`,
		says:   []string{`sleep`}, lacks: `sidecar`,
	},
	{
		name:   "goes through root, cwd and fd of every process",
		script: `ls -l /proc/1/fd; for p in /proc/[0-9]*; do ls $p/root/ $p/root/run/remora $p/root/etc/remora $p/cwd; ls -l $p/fd $p/exe; done`,
		says:   []string{`/proc/1/root/run/remora.: No such file`}, lacks: `good\.json|sidecar`,
	},
	{
		name: "searches every file of every mount",
		script: `echo ` + canary + ` >planted; cut -d' ' -f5 /proc/self/mountinfo
grep -r -a -s -h -o '` + loot + `[a-z0-9-]*' / --exclude-dir=proc --exclude-dir=sys; rm planted`,
		says: []string{canary, `/etc/hosts`}, lacks: `remora`,
	},
	{
		name:   "looks for the sidecar's volumes",
		script: `ls /run/remora /etc/remora; cat /proc/self/mountinfo; find / -xdev -name good.json; echo searched`,
		says:   []string{`/run/remora.: No such file`, `/etc/remora.: No such file`, `searched`}, lacks: `remora-(access|state|pod)|good\.json\n`,
	},
	{
		name:   "looks for logs of the node and sockets of its runtime",
		script: `ls /var/log/pods /var/log/containers /var/lib/kubelet /run/containerd; find / -xdev -type s; echo searched`,
		says:   []string{`/var/log/pods.: No such file`, `/var/lib/kubelet.: No such file`, `searched`}, lacks: `\.sock`,
	},
	{
		name:   "reads shared memory and message queues",
		script: `echo ` + canary + ` >/dev/shm/planted-$$; ls -a /dev/shm /dev/mqueue; cat /dev/shm/* /proc/sysvipc/*; rm /dev/shm/planted-$$`,
		says:   []string{canary},
	},
	{
		name:   "reads and attaches to the memory of every process",
		script: `hostile memory ` + canary,
		says:   []string{`, sleep: attach: <nil>, read: <nil>, found "` + canary, `other processes reached: 0\n`}, lacks: `, sidecar:`,
	},
	{
		name:   "kills the sidecar, so that it prints what it has",
		script: `hostile signals`,
		says:   []string{`signals delivered: 0\n`},
	},
	{
		name:   "turns on core dumps, and asks the kernel for its memory, its log, perf and bpf",
		script: `ulimit -c unlimited; hostile kernel`,
		says:   []string{`core pattern: open /proc/sys/kernel/core_pattern: (read-only|permission)`, `bpf: operation not permitted`, `kcore: (0 bytes|open)`},
	},
	{
		name:   "makes device files of the node's disks and memory",
		script: `hostile devices`,
		says:   []string{`device mem: (operation not permitted|permission denied|open \S+ operation not permitted)`}, lacks: `device \S+: <nil>`,
	},
	{
		name:   "becomes root of a user namespace, and captures packets or attaches from there",
		script: `hostile namespace hostile sniff true; hostile namespace hostile memory ` + canary + `; hostile namespace iptables-nft -t nat -F`,
		says:   []string{`operation not permitted`}, lacks: `captured|, sidecar:|reached: [1-9]`,
	},
	{
		name:   "connects to abstract sockets",
		script: `hostile sockets`,
		says:   []string{`these are all`}, lacks: `: <nil>`,
	},
	{
		name:   "listens on the sidecar's ports beside it",
		script: `hostile bind 127.0.0.1:9 127.0.0.1:14001 [::1]:14001 127.0.0.1:14020 :14021`,
		says: []string{`127.0.0.1:14001: .*address already in use`, `\[::1\]:14001: .*address already in use`, `127.0.0.1:14020: .*address already in use`,
			`:14021: .*address already in use`},
	},
	{
		name:   "listens on the sidecar's ports as its user",
		as:     []string{asRoot},
		script: `hostile as 14001 hostile bind 127.0.0.1:14001 [::1]:14001 127.0.0.1:14020 :14021`,
		says: []string{`127.0.0.1:14001: .*address already in use`, `\[::1\]:14001: .*address already in use`, `127.0.0.1:14020: .*address already in use`,
			`:14021: .*address already in use`},
	},
	{
		name:   "looks for processes as the sidecar's user",
		as:     []string{asRoot},
		script: `hostile as 14001 hostile memory ` + canary + `; hostile as 14001 hostile signals; hostile as 14001 id`,
		says:   []string{`other processes reached: 0\n`, `signals delivered: 0\n`, `uid=14001`}, lacks: `, sidecar:`,
	},
	{
		name:   "becomes another user",
		as:     []string{asOther},
		script: `hostile as 14001 id; hostile as 0 id`,
		says:   []string{`operation not permitted`}, lacks: `uid=`,
	},
	{
		name:   "calls as the sidecar's user, whose connections are not redirected",
		as:     []string{asRoot},
		script: `hostile as 14001 ` + curlChat + bankHost + ` --data '` + question("as the sidecar") + `'`,
		says:   []string{`You didn't provide an API key`, `401$`},
	},
	{
		name:   "empties the rules of the redirection",
		script: `iptables-nft -t nat -F; iptables-legacy -t nat -F; ip6tables-nft -t nat -F; ` + curlChat + bankHost + ` --data '` + question("of a flush") + `'`,
		says:   []string{`(Permission denied|not permitted|must be root)`, `200$`},
	},
	{
		name:   "captures packets without the right to",
		as:     []string{asOther},
		script: `hostile sniff true`,
		says:   []string{`operation not permitted`}, lacks: `captured`,
	},
}

// curlChat calls a host, and prints the status last.
const curlChat = `curl --silent --show-error --max-time 60 --write-out '\n%{http_code}' http://`

// asks are attempts to have the key told by the API server, the kubelet and the sidecar.
func asks() []attempt {
	const (
		ns  = "/api/v1/namespaces/" + heistPod
		llm = "/apis/istio.alibabacloud.com/v1beta1"
	)
	// call asks the API server with the account of the pod: once for what it may, then for what it may not.
	call := func(method, path string, more ...string) string {
		return `cd /var/run/secrets/kubernetes.io/serviceaccount
ask() { curl --silent --show-error --max-time 60 --write-out '\nanswered %{http_code}\n' --cacert ca.crt --header "Authorization: Bearer $(cat token)" "$@"; }
ask https://kubernetes.default.svc/version
ask --request ` + method + ` 'https://kubernetes.default.svc` + path + `' ` + strings.Join(more, " ")
	}
	asked := func(name, script string) attempt {
		return attempt{name: name, script: script, says: []string{`answered 200\n.*answered 40[13]\n`}}
	}
	token := `--header 'Content-Type: application/json' --data '{"apiVersion":"authentication.k8s.io/v1","kind":"TokenRequest","spec":{}}'`
	all := []attempt{
		asked("lists the Secrets of the namespace", call("GET", ns+"/secrets")),
		asked("lists the Secrets of all namespaces", call("GET", "/api/v1/secrets")),
		asked("watches the Secrets", call("GET", ns+"/secrets?watch=true")),
		asked("gets the Secret of keys", call("GET", ns+"/secrets/"+v1beta1.KeysSecret)),
		asked("gets the Secret of the sidecar's token", call("GET", ns+"/secrets/"+v1beta1.AccessSecret)),
		asked("gets the Secret that a provider names", call("GET", ns+"/secrets/bank")),
		asked("lists the providers", call("GET", llm+"/namespaces/"+heistPod+"/llmproviders")),
		asked("lists the routes", call("GET", llm+"/namespaces/"+heistPod+"/llmroutes")),
		asked("asks for a token of the sidecar's account", call("POST", ns+"/serviceaccounts/"+v1beta1.SidecarName+"/token", token)),
		asked("asks for a token of the controller's account", call("POST", "/api/v1/namespaces/"+system+"/serviceaccounts/"+v1beta1.ControllerName+"/token", token)),
		asked("bears the name of the sidecar's account", call("GET", ns+"/secrets/"+v1beta1.KeysSecret,
			"--header 'Impersonate-User: system:serviceaccount:"+heistPod+":"+v1beta1.SidecarName+"'")),
		asked("reads the sidecar's log", call("GET", ns+"/pods/app/log?container="+v1beta1.SidecarContainer)),
		asked("runs a command in the sidecar", call("POST", ns+"/pods/app/exec?command=/sidecar&container="+v1beta1.SidecarContainer)),
		asked("forwards a port to the sidecar", call("POST", ns+"/pods/app/portforward?ports=14001")),
		asked("makes a container that targets the sidecar", call("PATCH", ns+"/pods/app/ephemeralcontainers",
			`--header 'Content-Type: application/strategic-merge-patch+json' --data '{"spec":{"ephemeralContainers":[{"name":"x","image":"x","targetContainerName":"remora-sidecar"}]}}'`)),
		asked("changes a provider", call("PATCH", llm+"/namespaces/"+heistPod+"/llmproviders/bank",
			`--header 'Content-Type: application/merge-patch+json' --data '{"spec":{"host":"`+thiefHost+`"}}'`)),
		{name: "asks the API server as nobody", script: `curl --silent --insecure --write-out '\nanswered %{http_code}\n' https://kubernetes.default.svc` + ns + `/secrets`,
			says: []string{`answered 40[13]\n`}},
		{name: "asks the kubelet", script: `
for path in pods runningpods/ configz containerLogs/` + heistPod + `/app/remora-sidecar logs/ run/` + heistPod + `/app/remora-sidecar; do
  curl --silent --insecure --max-time 60 --write-out '\nanswered %{http_code}\n' https://$NODE:10250/$path
  curl --silent --insecure --max-time 60 --write-out '\nanswered %{http_code}\n' --header "Authorization: Bearer $(cat /var/run/secrets/kubernetes.io/serviceaccount/token)" https://$NODE:10250/$path
done`, says: []string{`(answered 40[13]\n.*){12}`}, lacks: `answered 200`},
	}
	for _, port := range []string{"14020", "14021"} {
		var script strings.Builder
		for _, path := range []string{"config", "metrics", "livez", "", "keys", "secrets", "config?keys=true", "debug/pprof/", "debug/pprof/heap?debug=2", "debug/pprof/goroutine?debug=2",
			"debug/vars", "..%2f..%2frun/remora/last/good.json", "../../../run/remora/last/good.json", "proc/self/environ", "quitquitquit", "logging", "config_dump"} {
			for _, method := range []string{"GET", "POST", "PUT"} {
				fmt.Fprintf(&script, "curl --silent --path-as-is --max-time 60 --request %s --write-out '\\n%s %s %%{http_code}\\n' 'http://127.0.0.1:%s/%s'\n", method, method, path, port, path)
			}
		}
		all = append(all, attempt{name: "asks port " + port + " for all that it might tell", script: script.String(),
			says: []string{`GET livez 200`, `GET debug/pprof/ 404`, `GET keys 404`, `POST metrics 405`}, lacks: `goroutine profile|"memstats"`})
	}
	return all
}
