package proxy

import "remora.dev/remora/sidecar/routing"

// blame notes why a WebSocket ends, if nobody has before: what follows the first end is its consequence.
func (s *socket) blame(code routing.Code) { s.why.CompareAndSwap(nil, &code) }

// concluded ends the record of a WebSocket, both of whose directions have. An orderly end is nobody's fault.
func (s *socket) concluded() {
	r := s.rec
	if r == nil {
		return
	}
	s.rec = nil
	r.idle()
	r.RequestBytes, r.ResponseBytes = s.told, s.heard
	switch why := s.why.Load(); {
	case s.conn.revoked.Load():
		r.cut(routing.KeyRevoked, s.client)
	case s.client.evicted.Load():
		r.cut(routing.ClientGone, s.client)
	case why == nil || *why == "":
	case *why == routing.DeadlineExceeded: // nothing was said by either
		r.cut(*why, s.client)
		r.Code = routing.IdleTimeout
	default:
		r.cut(*why, s.client)
	}
	r.end()
}
