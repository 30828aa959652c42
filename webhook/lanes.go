package main

import (
	"net/http"
	"time"
)

const (
	// smallRequest is the size in bytes of a request that never waits: nearly all objects are smaller.
	smallRequest = 32 << 10
	// mediumAtOnce is how many that are larger, up to mediumRequest, are read and judged at a time. While a pod is changed, it takes
	// some sixty times its size in memory: the hundreds that an API server lets one user ask at once would be more than there is.
	mediumRequest = 128 << 10
	mediumAtOnce  = 8
	// largeAtOnce is how many larger ones are read and judged at a time. Each may take some 100 MB and a second, and they must
	// leave room for those of all other namespaces.
	largeAtOnce = 2
	// readTime is how long a request may take to arrive, and to wait: an API server has given up by then.
	readTime = 5 * time.Second
)

// lanes keeps large requests from slowing small ones down, all of them together from taking more memory than there is, and those
// that never end from staying. Anybody in the cluster can reach this server.
type lanes struct {
	next          http.Handler
	patience      time.Duration
	medium, large chan struct{} // hold one for each that is under way
}

func newLanes(next http.Handler) *lanes {
	return &lanes{next: next, patience: readTime, medium: make(chan struct{}, mediumAtOnce), large: make(chan struct{}, largeAtOnce)}
}

// of gives the lane of a request; nil where it has not to wait.
func (l *lanes) of(req *http.Request) chan struct{} {
	switch size := req.ContentLength; {
	case size < 0 || size > mediumRequest:
		return l.large
	case size > smallRequest:
		return l.medium
	}
	return nil
}

// ServeHTTP is for the server.
func (l *lanes) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if lane := l.of(req); lane != nil {
		wait := time.NewTimer(l.patience)
		defer wait.Stop()
		select {
		case lane <- struct{}{}:
			defer func() { <-lane }()
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
