package routing

import "fmt"

// Key is key material. It shows itself to nobody: every way of printing or encoding it gives
// "[redacted]". Only Reveal gives the value.
type Key struct{ value string }

// NewKey wraps a value.
func NewKey(value string) Key { return Key{value} }

// Reveal gives the value. Its only rightful use is to send it to the provider it belongs to.
func (k Key) Reveal() string { return k.value }

// IsZero tells whether there is no key.
func (k Key) IsZero() bool { return k.value == "" }

const redacted = "[redacted]"

// String hides the value.
func (k Key) String() string { return redacted }

// GoString hides the value.
func (k Key) GoString() string { return redacted }

// Format hides the value from every verb of package fmt.
func (k Key) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// MarshalText hides the value from encoders.
func (k Key) MarshalText() ([]byte, error) { return []byte(redacted), nil }
