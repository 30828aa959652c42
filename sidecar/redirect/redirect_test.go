//go:build linux

package main

import (
	"net"
	"strings"
	"testing"
	"time"
)

const (
	withIPv6 = "with IPv6"
	onlyNFT  = ",+net_admin"
	both     = ",+net_admin,+net_raw"
)

// Where legacy has a rule already, it is gone on with.
const legacyRule = "iptables-legacy -A INPUT -p udp --dport 9 -j ACCEPT; ip6tables-legacy -A INPUT -p udp --dport 9 -j ACCEPT"

func TestConnectionsToTheChosenPortsEndAtTheSidecarAndNoOthers(t *testing.T) {
	f := func(name, before, capabilities, backEnd string) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pod, world := newPod(t, withIPv6)
			pod.sh(t, before)
			said := pod.works(t, capabilities, "--exclude 203.0.113.0/24,2001:db8:1::/48")
			for _, want := range []string{
				"IPv4 to 127.0.0.1:14001 (" + backEnd + "; tried)", "IPv6 to [::1]:14001 (" + backEnd + "; tried)",
				"-A REMORA_OUTPUT -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 14001", "# A connection to port 80",
			} {
				if !strings.Contains(said, want) {
					t.Errorf("it does not say %q:\n%s", want, said)
				}
			}
			pod.serve(t, "the sidecar", "127.0.0.1:14001", "[::1]:14001")
			pod.serve(t, "the app", "127.0.0.1:80", "10.9.0.2:80", "[::1]:80", "[fd00::2]:80")
			answers(t, pod, 0, 0, map[string]string{
				"192.0.2.1:80":        "the sidecar for 192.0.2.1:80",
				"[2001:db8::1]:80":    "the sidecar for [2001:db8::1]:80",
				"192.0.2.1:8080":      "the world", // another port
				"[2001:db8::1]:8080":  "the world",
				"203.0.113.7:80":      "the world", // excluded
				"[2001:db8:1::7]:80":  "the world",
				"127.0.0.1:80":        "the app", // within the pod
				"10.9.0.2:80":         "the app",
				"[::1]:80":            "the app",
				"[fd00::2]:80":        "the app",
				"127.0.0.1:14001":     "the sidecar",
				"192.0.2.1:14001":     "dial tcp 192.0.2.1:14001: connect: connection refused", // by the world
				"[2001:db8::1]:14001": "dial tcp [2001:db8::1]:14001: connect: connection refused",
			})
			answers(t, pod, 1000, 14000, map[string]string{"192.0.2.1:80": "the sidecar for 192.0.2.1:80"})
			for _, sidecar := range [][2]uint32{{14001, 14001}, {14001, 7}, {7, 14001}} {
				answers(t, pod, sidecar[0], sidecar[1], map[string]string{"192.0.2.1:80": "the world", "[2001:db8::1]:80": "the world"})
			}
			udp(t, pod, world, "192.0.2.1:80")
			udp(t, pod, world, "[2001:db8::1]:80")
		})
	}
	f("nft, with NET_ADMIN only", "", onlyNFT, "iptables-nft")
	f("nft, with more", "", both, "iptables-nft")
	f("legacy, which was there", legacyRule, both, "iptables-legacy")
	f("nft, since legacy may not be used", legacyRule, onlyNFT, "iptables-nft")
}

func answers(t *testing.T, pod *place, uid, gid uint32, want map[string]string) {
	t.Helper()
	for address, want := range want {
		if got := pod.app(t, uid, gid, address); got != want {
			t.Errorf("user %d, group %d calls %s: %q answers, want %q", uid, gid, address, got, want)
		}
	}
}

func udp(t *testing.T, pod, world *place, address string) {
	t.Helper()
	var server net.PacketConn
	var client net.Conn
	var err error
	world.in(func() { server, err = net.ListenPacket("udp", address) })
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	pod.in(func() { client, err = net.Dial("udp", address) })
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := client.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	server.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, _, err := server.ReadFrom(make([]byte, 16)); err != nil || n != len("hello") {
		t.Errorf("UDP to %s: %d bytes, %v", address, n, err)
	}
}

func TestASecondRunConvergesAndLeavesTheRulesOfOthers(t *testing.T) {
	f := func(name, before, backEnd string) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pod, _ := newPod(t, withIPv6)
			pod.sh(t, before)
			rules := func() string {
				var kept []string
				save := strings.ReplaceAll("iptables-X-save -t filter; iptables-X-save -t nat; ip6tables-X-save -t filter; ip6tables-X-save -t nat", "X", backEnd)
				for line := range strings.Lines(pod.sh(t, "exec 2>/dev/null; "+save)) {
					if strings.HasPrefix(line, "-A") && !strings.HasPrefix(line, "-A INPUT") {
						kept = append(kept, line)
					}
				}
				return strings.Join(kept, "")
			}
			pod.works(t, both, "--ports 80 --exclude 203.0.113.0/24")
			once := rules()
			pod.works(t, both, "--ports 80 --exclude 203.0.113.0/24")
			if twice := rules(); twice != once {
				t.Errorf("the same again gave\n%s\nand before\n%s", twice, once)
			}
			pod.works(t, both, "--ports 8080")
			for _, family := range []string{"iptables", "ip6tables"} {
				pod.sh(t, strings.ReplaceAll(`iptables -t nat -N ISTIO_OUTPUT
					iptables -t filter -I OUTPUT 1 -p tcp -m tcp --dport 25 -j DROP
					iptables -t nat -A ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN
					iptables -t nat -A ISTIO_OUTPUT -p tcp -m multiport --dports 80,8080 -j REDIRECT --to-ports 15001
					iptables -t nat -I OUTPUT 1 -p tcp -m comment --comment "-j REMORA_OUTPUT" -j ISTIO_OUTPUT`, "iptables", family+"-"+backEnd))
			}
			// The sidecar is at work by now.
			pod.serve(t, "the sidecar", "127.0.0.1:14001", "[::1]:14001")
			if said := pod.works(t, both, ""); !strings.Contains(said, "beside the sidecar that is at work") {
				t.Errorf("it does not say that the sidecar is at work:\n%s", said)
			}
			const want = `-A OUTPUT -p tcp -j REMORA_OUTPUT
-A OUTPUT -p tcp -m tcp --dport 25 -j DROP
-A REMORA_OUTPUT -m owner --uid-owner 14001 -j RETURN
-A REMORA_OUTPUT -m owner --gid-owner 14001 -j RETURN
-A REMORA_OUTPUT -o lo -j RETURN
-A REMORA_OUTPUT -p tcp -m tcp --dport 80 --tcp-flags FIN,SYN,RST,ACK SYN -j REJECT --reject-with tcp-reset
-A OUTPUT -p tcp -j REMORA_OUTPUT
-A OUTPUT -p tcp -m comment --comment "-j REMORA_OUTPUT" -j ISTIO_OUTPUT
-A ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -p tcp -m multiport --dports 80,8080 -j REDIRECT --to-ports 15001
-A REMORA_OUTPUT -m owner --uid-owner 14001 -j RETURN
-A REMORA_OUTPUT -m owner --gid-owner 14001 -j RETURN
-A REMORA_OUTPUT -o lo -j RETURN
-A REMORA_OUTPUT -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 14001
`
			if got := rules(); got != want+want {
				t.Errorf("the rules are\n%s\nwant, for each family,\n%s", got, want)
			}
			answers(t, pod, 0, 0, map[string]string{
				"192.0.2.1:80":       "the sidecar for 192.0.2.1:80",
				"[2001:db8::1]:80":   "the sidecar for [2001:db8::1]:80",
				"203.0.113.7:80":     "the sidecar for 203.0.113.7:80", // excluded no more
				"192.0.2.1:8080":     "dial tcp 192.0.2.1:8080: connect: connection refused",
				"[2001:db8::1]:8080": "dial tcp [2001:db8::1]:8080: connect: connection refused", // by the rules of the other mesh
			})
		})
	}
	f("nft", "", "nft")
	f("legacy", legacyRule, "legacy")
}

func TestAPodWithIPv6OffGetsNoRulesOfIt(t *testing.T) {
	t.Parallel()
	pod, _ := newPod(t)
	pod.sh(t, "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6")
	said := pod.works(t, onlyNFT, "")
	if strings.Contains(said, "ip6tables") || !strings.Contains(said, "IPv6 not at all (it is off") {
		t.Errorf("it says\n%s", said)
	}
	if rules := pod.sh(t, "ip6tables-nft-save"); strings.Contains(rules, "REMORA") {
		t.Errorf("there are\n%s", rules)
	}
}

func TestAnIPv6AddressThatComesLaterIsRedirectedToo(t *testing.T) {
	t.Parallel()
	pod, world := newPod(t)
	pod.works(t, onlyNFT, "")
	pod.serve(t, "the sidecar", "[::1]:14001")
	pod.sh(t, "ip addr add fd00::2/64 dev eth0 nodad")
	world.sh(t, "ip addr add fd00::1/64 dev gate nodad; ip addr add 2001:db8::1/128 dev lo nodad")
	pod.sh(t, "ip route add default via fd00::1")
	world.serve(t, "the world", "[2001:db8::1]:80")
	answers(t, pod, 0, 0, map[string]string{"[2001:db8::1]:80": "the sidecar for [2001:db8::1]:80"})
}

func TestAPodWithoutARouteIsRedirectedUntried(t *testing.T) {
	t.Parallel()
	pod, _ := newPod(t)
	pod.sh(t, "ip route del default")
	if said := pod.works(t, onlyNFT, ""); !strings.Contains(said, "not tried, since the pod has no IPv4 route") {
		t.Errorf("it says\n%s", said)
	}
	pod.sh(t, "ip route add default via 10.9.0.1")
	pod.serve(t, "the sidecar", "127.0.0.1:14001")
	answers(t, pod, 0, 0, map[string]string{"192.0.2.1:80": "the sidecar for 192.0.2.1:80"})
}

func TestAWrongCommandLineSaysWhatToWrite(t *testing.T) {
	pod := newPlace(t)
	out, code := pod.redirect(t, onlyNFT, "--ports http")
	if code != exitUsage || !strings.Contains(out, `--ports: "http" is not a port`) || !strings.Contains(out, "redirect help") {
		t.Errorf("%d: %s", code, out)
	}
	out, code = pod.redirect(t, onlyNFT, "help")
	if code != exitOK || !strings.Contains(out, "--exclude CIDR") {
		t.Errorf("%d: %s", code, out)
	}
}
