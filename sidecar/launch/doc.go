// Package launch is the sidecar's command line as a type. The injector writes it and the sidecar reads
// it, so that they cannot disagree. It is pure: it opens no file and resolves no name.
package launch
