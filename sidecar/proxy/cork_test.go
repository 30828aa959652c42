package proxy

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"testing"
	"time"
)

// countedConn counts what goes to the kernel, and may fail.
type countedConn struct {
	net.Conn
	writes int
	failed error
}

func (c *countedConn) Write(b []byte) (int, error) {
	if c.failed != nil {
		return 0, c.failed
	}
	c.writes++
	return c.Conn.Write(b)
}

// longRequest is a request with a spliced body: a short piece, one of about that size, and a short one.
func longRequest(size int) (head []byte, body segments) {
	body.add([]byte(`{"model":"m","messages":"`))
	body.add(bytes.Repeat([]byte("remora "), size/7))
	body.add([]byte(`"}`))
	return []byte("POST / HTTP/1.1\r\n\r\n"), body
}

func TestALongPromptGoesToTheKernelAtOnce(t *testing.T) {
	certificate := certified(t)
	f := func(size, most int) {
		t.Helper()
		here, there := net.Pipe()
		counted := &countedConn{Conn: here}
		secured := tls.Client(&corked{Conn: counted}, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13})
		provider := tls.Server(there, &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS13})
		got := make(chan []byte, 1)
		go func() {
			all, _ := io.ReadAll(provider) // too little, of one that breaks off
			got <- all
		}()
		if err := secured.Handshake(); err != nil {
			t.Fatal(err)
		}
		conn := newUpConn(&pool{}, nil, secured)
		counted.writes = 0
		head, body := longRequest(size)
		want := append(bytes.Clone(head), bytes.Join(body.pieces(), nil)...)
		if err := send(conn, &head, &body); err != nil {
			t.Fatal(err)
		}
		if counted.writes > most {
			t.Errorf("%d bytes took %d writes, want at most %d", len(want), counted.writes, most)
		}
		_ = secured.Close()
		if b := <-got; !bytes.Equal(b, want) {
			t.Errorf("of %d bytes, %d arrived, or others", len(want), len(b))
		}
	}
	f(100, 1)
	f(60<<10, 1)
	f(1<<20, 20)
}

func TestAWriteThatFailsLateFailsTheRequest(t *testing.T) {
	broken := errors.New("the network is down")
	below := &corked{Conn: &countedConn{failed: broken}}
	conn := &upConn{Conn: below, below: below}
	head, body := longRequest(20 << 10)
	if err := send(conn, &head, &body); !errors.Is(err, broken) {
		t.Errorf("the error is %v", err)
	}
	if below.held != nil {
		t.Error("what follows would be held back")
	}
}

// certified is a certificate that nobody trusts.
func certified(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
