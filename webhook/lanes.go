package main

import (
	"net/http"
	"time"
)

const (
	// smallRequest is the size in bytes of a request that never waits: nearly all objects are smaller.
	smallRequest = 128 << 10
	// largeAtOnce is how many larger ones are read and judged at a time. Each may take some 100 MB and a second, and they must
	// leave room for those of all other namespaces.
	largeAtOnce = 2
	// readTime is how long a request may take to arrive, and to wait: an API server has given up by then.
	readTime = 5 * time.Second
)

// lanes keeps large requests from slowing small ones down, and those that never end from staying. Anybody in the cluster can
// reach this server.
type lanes struct {
	next     http.Handler
	patience time.Duration
	large    chan struct{} // holds one for each that is under way
}

func newLanes(next http.Handler) *lanes {
	return &lanes{next: next, patience: readTime, large: make(chan struct{}, largeAtOnce)}
}

// ServeHTTP is for the server.
func (l *lanes) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.ContentLength < 0 || req.ContentLength > smallRequest {
		wait := time.NewTimer(l.patience)
		defer wait.Stop()
		select {
		case l.large <- struct{}{}:
			defer func() { <-l.large }()
		case <-req.Context().Done():
			return // whoever asked does not wait any longer
		case <-wait.C:
			http.Error(w, "there are too many large objects to judge: try again", http.StatusServiceUnavailable)
			return
		}
	}
	// From here on: what waits in line has a right to its time.
	if err := http.NewResponseController(w).SetReadDeadline(time.Now().Add(l.patience)); err != nil {
		http.Error(w, "the time to read cannot be limited", http.StatusInternalServerError)
		return
	}
	l.next.ServeHTTP(w, req)
}
