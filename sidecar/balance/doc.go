// Package balance chooses the server of a call. It knows no HTTP, no connection and no Kubernetes: it is told who the servers are, what
// a call is like, and how calls ended; time and chance are handed in.
package balance
