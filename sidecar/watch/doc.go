// Package watch follows the configuration and publishes what it compiles to. It knows no proxy: the two
// meet in the snapshot store.
//
// It is read from files, or from the API server of Kubernetes. Both behave like admission, object by
// object: an edit that makes an object invalid is refused and its last good version keeps running, while
// everything else takes effect. A file that cannot be read keeps what was last read from it, and while the
// API server is away, what it told last keeps running. No log line and no problem ever holds a key.
package watch
