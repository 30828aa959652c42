package proxy

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
)

// counted counts how often it is ended.
type counted int

func (c *counted) abort() { *c++ }

func TestADepartureSeenTwiceEndsThingsOnce(t *testing.T) {
	c := &clientConn{}
	pause := make(waiting)
	c.attach(pause)
	c.depart() // the half-close
	c.depart() // what follows it: closing pause again would panic
	if _, open := <-pause; open {
		t.Error("the pause goes on")
	}
	var recycled counted
	if c.attach(&recycled) {
		t.Error("the app seems to be there still")
	}
	// The connection is given back; another request may use it when the app's end is seen again.
	c.depart()
	if recycled != 0 {
		t.Error("a connection was ended that was not the departed app's any more")
	}
}

// short is a listener for which there are no descriptors at first.
type short struct{ failures []error }

func (s *short) Accept() (net.Conn, error) {
	err := s.failures[0]
	s.failures = s.failures[1:]
	return nil, err
}
func (s *short) Close() error   { return nil }
func (s *short) Addr() net.Addr { return &net.TCPAddr{} }

func TestAShortageOfDescriptorsDoesNotEndTheProxy(t *testing.T) {
	l := &listener{Listener: &short{failures: []error{
		&net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)},
		&net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.ECONNABORTED)}, io.ErrClosedPipe,
	}}}
	if _, err := l.Accept(); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("the listener ended with %v", err)
	}
}
