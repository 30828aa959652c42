package proxy

import "strings"

func hasPort(authority string) bool { return len(hostOf([]byte(authority))) < len(authority) }

func hasQuery(path string) bool { return strings.IndexByte(path, '?') >= 0 }

// upstreamAuthority is the Host header at the current target: that of a provider is its own, whatever a rule says.
func (c *call) upstreamAuthority() string {
	if c.target.Authority != "" {
		return c.target.Authority
	}
	authority := string(c.authority)
	if a := c.rule.Action; a != nil && a.Rewrite.Authority != "" {
		authority = a.Rewrite.Authority
	}
	if c.shadow {
		return shadowed(authority)
	}
	return authority
}
