//go:build linux

package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What conntrack remembers of a connection of the sidecar's outlives the connection where the destination did not end it in
// good order. An app's connection between the same ports is then taken for the same one, and the table nat is not asked.
func TestAnAppThatGetsTheSidecarsPortOfJustBeforeDoesNotReachTheWorld(t *testing.T) {
	f := func(name, before, capabilities string) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pod, world := newPod(t, withIPv6)
			pod.sh(t, before)
			pod.works(t, capabilities, "")
			pod.serve(t, "the sidecar", "127.0.0.1:14001", "[::1]:14001")
			port := 33000
			for _, host := range []string{"198.51.100.%d", "2001:db8:2::%d"} {
				for i, treatment := range []func(*testing.T, *place, string) (string, func()){refuses, resets, loses} {
					address := fmt.Sprintf(host, i+1)
					world.sh(t, "ip addr add "+address+" dev lo nodad 2>/dev/null || ip addr add "+address+" dev lo")
					address = net.JoinHostPort(address, "80")
					port++
					from := fmt.Sprintf("%s=%d", appPort, port)
					patience, thenAnswer := treatment(t, world, address)
					first := pod.app(t, 14001, 14001, address, from, appPatience+"="+patience)
					thenAnswer()
					got := pod.app(t, 1000, 1000, address, from)
					want := "connection refused"
					if i == 0 { // A connection that never came about is forgotten at once.
						want = "the sidecar for " + address
					}
					if !strings.Contains(got, want) {
						t.Errorf("the sidecar had %q from %s, and an app gets %q from the same port", first, address, got)
					}
					// Any other port of the app's is as ever.
					answers(t, pod, 1000, 1000, map[string]string{address: "the sidecar for " + address})
				}
			}
		})
	}
	f("nft", "", onlyNFT)
	f("legacy", legacyRule, both)
}

// refuses is what the world does as long as nobody listens. Like its siblings, it tells how long to wait, and has the world
// answer from then on.
func refuses(t *testing.T, world *place, address string) (string, func()) {
	t.Helper()
	return "10s", func() { world.serve(t, "the world", address) }
}

func resets(t *testing.T, world *place, address string) (string, func()) {
	t.Helper()
	var listener net.Listener
	var err error
	world.in(func() { listener, err = net.Listen("tcp", address) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for connections := 0; ; connections++ {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			if connections == 0 {
				_ = conn.(*net.TCPConn).SetLinger(0)
			} else {
				fmt.Fprint(conn, "the world")
			}
			_ = conn.Close()
		}
	}()
	return "10s", func() {}
}

func loses(t *testing.T, world *place, address string) (string, func()) {
	t.Helper()
	each := func(action string) {
		rule := "-t raw " + action + " PREROUTING -p tcp --dport 80 -j DROP"
		world.sh(t, "iptables-nft "+rule+"; ip6tables-nft "+rule)
	}
	each("-A")
	return "300ms", func() {
		each("-D")
		world.serve(t, "the world", address)
	}
}

func TestWhereTheTableNatIsNotAskedNothingLeaves(t *testing.T) {
	f := func(name, tables, spoil string) {
		t.Run(name+", "+tables, func(t *testing.T) {
			t.Parallel()
			pod, _ := newPod(t, withIPv6)
			if tables == "legacy" {
				pod.sh(t, legacyRule)
			}
			pod.works(t, both, "--ports 80,8080 --exclude 203.0.113.0/24,2001:db8:1::/48")
			pod.serve(t, "the sidecar", "127.0.0.1:14001", "[::1]:14001")
			pod.serve(t, "the app", "10.9.0.2:80", "[fd00::2]:80")
			for _, family := range []string{"iptables-", "ip6tables-"} {
				pod.sh(t, family+tables+" "+spoil)
			}
			const refused = "dial tcp %[1]s: connect: connection refused"
			want := map[string]string{"10.9.0.2:80": "the app", "[fd00::2]:80": "the app", "203.0.113.7:80": "the world", "[2001:db8:1::7]:8080": "the world"}
			for _, address := range []string{"192.0.2.1:80", "192.0.2.1:8080", "[2001:db8::1]:80", "[2001:db8::1]:8080"} {
				want[address] = fmt.Sprintf(refused, address)
			}
			answers(t, pod, 0, 0, want)
			for _, sidecar := range [][2]uint32{{14001, 7}, {7, 14001}} {
				answers(t, pod, sidecar[0], sidecar[1], map[string]string{"192.0.2.1:80": "the world", "[2001:db8::1]:8080": "the world"})
			}
			// Putting it right needs no more than another run.
			pod.sh(t, "iptables-"+tables+" -t raw -F; ip6tables-"+tables+" -t raw -F")
			pod.works(t, both, "--ports 80,8080")
			answers(t, pod, 0, 0, map[string]string{"192.0.2.1:80": "the sidecar for 192.0.2.1:80", "[2001:db8::1]:8080": "the sidecar for [2001:db8::1]:8080"})
		})
	}
	for _, tables := range []string{"nft", "legacy"} {
		f("emptied", tables, "-t nat -F")
		f("our chain led to no more", tables, "-t nat -D OUTPUT -p tcp -j REMORA_OUTPUT")
		f("packets that are not followed", tables, "-t raw -A OUTPUT -p tcp -j CT --notrack")
	}
}

// An app may have to wait where the kernel has no REJECT, but nothing leaves.
func TestAKernelWithoutREJECTDropsWhatIsNotRedirected(t *testing.T) {
	t.Parallel()
	pod, _ := newPod(t, withIPv6)
	said, code := pod.redirect(t, onlyNFT, "", "PATH="+refusing(t, "REJECT"))
	for _, want := range []string{"--syn -j DROP", "Remedy, on the node: modprobe ipt_REJECT", "modprobe ip6t_REJECT"} {
		if code != exitOK || !strings.Contains(said, want) {
			t.Errorf("it ended with %d and does not say %q:\n%s", code, want, said)
		}
	}
	pod.sh(t, "iptables-nft -t nat -F; ip6tables-nft -t nat -F")
	for _, address := range []string{"192.0.2.1:80", "[2001:db8::1]:80"} {
		if got := pod.app(t, 1000, 1000, address, appPatience+"=300ms"); !strings.Contains(got, "i/o timeout") {
			t.Errorf("%s: %q", address, got)
		}
	}
}

// refusing gives a PATH with programs of nft that refuse scripts with a word, for either family.
func refusing(t *testing.T, word string) string {
	t.Helper()
	folder := t.TempDir()
	for _, program := range []string{"iptables-nft-restore", "ip6tables-nft-restore"} {
		write(t, filepath.Join(folder, program), "#!/bin/sh\nscript=$(cat)\ncase $script in *"+word+"*) echo refused by a test >&2; exit 4;; esac\n"+
			"echo \"$script\" | exec /usr/sbin/"+program+" \"$@\"\n")
	}
	return folder + ":" + os.Getenv("PATH")
}
