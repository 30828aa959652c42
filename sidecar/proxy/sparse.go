package proxy

import (
	"sync"
	"time"

	"remora.dev/remora/sidecar/routing"
)

const (
	sparseInterval = 10 * time.Second
	maxSparse      = 256
)

// sparse keeps what a loop of callers is refused from filling the log.
type sparse struct {
	mu   sync.Mutex
	last map[sparseKind]sparseState
}

// sparseKind is what is told apart.
type sparseKind struct {
	code     routing.Code
	provider routing.Ref
	uid      uint32
	known    bool
}

type sparseState struct {
	said  time.Time
	since int
}

// say tells whether a line is due, and how many like it have been left out since the last.
func (s *sparse) say(k sparseKind, now time.Time) (leftOut int, due bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	state, known := s.last[k]
	if known && now.Sub(state.said) < sparseInterval {
		state.since++
		s.last[k] = state
		return 0, false
	}
	if s.last == nil || len(s.last) >= maxSparse {
		s.last = map[sparseKind]sparseState{}
	}
	s.last[k] = sparseState{said: now}
	return state.since, true
}
