// Package usage finds out how many tokens an answer took, while it passes: from what the provider reports, or from the text
// where there is no report. It is pure: bytes in, numbers out, and nothing is allocated, decoded or kept of what passes.
package usage
