package llmserver

import (
	"context"
	"time"
)

// Shutdown ends as a good server does: it takes no new connections, closes those that wait for another request, completes the answers that it is
// giving, and then closes. When the context ends, it closes at once.
func (s *Server) Shutdown(ctx context.Context) {
	s.ending.Store(true)
	s.encrypted.Close()
	if s.plain != nil {
		s.plain.Close()
	}
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for s.closeIdle() > 0 {
		select {
		case <-again.C:
		case <-ctx.Done():
			s.Close()
			return
		}
	}
	s.Close()
}

// closeIdle gives the number of connections that are still needed.
func (s *Server) closeIdle() (busy int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn, b := range s.open {
		if b.Load() {
			busy++
			continue
		}
		conn.Close()
	}
	return busy
}
