// Package tokens compares the sidecar's estimates of tokens with what a real tokenizer makes of the same texts. It is a module
// of its own, so that the tokenizer with its vocabularies belongs to nothing else.
package tokens
