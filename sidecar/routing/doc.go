// Package routing turns what users wrote into what the proxy does, and says what is wrong with it.
//
// It is pure: no client, clock, logger, goroutine or file. The same Compile is asked by admission
// ("would you run this?"), by the sidecar (which runs the answer) and by the command line (which prints
// it), so they cannot disagree. Compile is total: what is broken is named and left out, the rest runs.
package routing
