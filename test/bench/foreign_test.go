package main

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"remora.dev/remora/test/bench/pinned"
)

func TestAForeignConnectionComesBackThroughTheLeastSplice(t *testing.T) {
	_, core, err := pinned.Cores()
	if err != nil {
		t.Fatal(err)
	}
	world, err := beginWorld()
	if err != nil {
		t.Fatal(err)
	}
	defer world.Close()
	port, err := pinned.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	p, err := pinned.Launch(leastSplice, core, []string{pinned.Self, "splice", fmt.Sprintf("127.0.0.1:%d", port)})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop()
	if err := redirect("192.0.2.9", port); err != nil {
		t.Fatal(err)
	}
	if err := awaitListener(t.Context(), p, "192.0.2.9"); err != nil {
		t.Fatal(err)
	}
	before, err := p.Used()
	if err != nil {
		t.Fatal(err)
	}
	if err := exchange(t.Context(), "192.0.2.9", 1<<20); err != nil {
		t.Error(err)
	}
	if after, err := p.Used(); err != nil || after == before {
		t.Errorf("it came another way: the process did nothing (%v)", err)
	}
}

func TestForeignBytesThatComeBackWrongEndTheRun(t *testing.T) {
	world, err := beginWorld()
	if err != nil {
		t.Fatal(err)
	}
	world.Close()
	listener, err := net.Listen("tcp4", fmt.Sprintf("192.0.2.8:%d", worldPort))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		c, err := listener.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		buffer := make([]byte, smallForeign)
		n, _ := c.Read(buffer)
		buffer[0]++
		_, _ = c.Write(buffer[:n])
	}()
	if err := exchange(t.Context(), "192.0.2.8", smallForeign); err == nil || !strings.Contains(err.Error(), "foreign") {
		t.Errorf("the error is %v", err)
	}
}
