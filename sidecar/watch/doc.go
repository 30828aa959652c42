// Package watch follows the configuration and publishes what it compiles to. It knows no proxy: the two
// meet in the snapshot store.
//
// Files behave like admission, object by object: an edit that makes an object invalid is refused and its
// last good version keeps running, while everything else takes effect. A file that cannot be read keeps
// what was last read from it. No log line and no problem ever holds a key.
package watch
