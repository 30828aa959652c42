package routing

import (
	"bytes"
	"cmp"
	"fmt"
	"strings"
)

func (l *Listener) write(b *bytes.Buffer) {
	fmt.Fprintf(b, "listener %d%s\n", l.Port, map[bool]string{true: " tls"}[l.TLS])
	for i, s := range l.Servers {
		fmt.Fprintf(b, "server %s of %s for %s", s.Name, s.Gateway, strings.Join(s.Hosts, " "))
		for _, part := range []struct {
			show bool
			text string
		}{
			{s.Passthrough, " passthrough"},
			{s.ToHTTPS, " to-https"},
			{len(s.Certificate) > 0, fmt.Sprintf(" certificates=%d", len(s.Certificate))},
			{s.ClientCAs != "", " client-certificates"},
			{s.ClientOptional, " optional"},
			{len(s.ClientNames) > 0, " of=" + strings.Join(s.ClientNames, ",")},
			{s.MinVersion != 0, fmt.Sprintf(" from=%x", s.MinVersion)},
			{s.MaxVersion != 0, fmt.Sprintf(" to=%x", s.MaxVersion)},
			{len(s.CipherSuites) > 0, fmt.Sprintf(" suites=%x", s.CipherSuites)},
			{s.Refusal != nil, " refused " + s.refused()},
		} {
			if part.show {
				b.WriteString(part.text)
			}
		}
		b.WriteByte('\n')
		for _, name := range s.sni.names() {
			r := s.sni.at(name)
			fmt.Fprintf(b, "sni %s\n  rule %s of %s\n", name, cmp.Or(r.Name, "-"), r.Owner)
			for j := range r.Levels {
				r.Levels[j].write(b, j)
			}
		}
		if !l.TLS && i < len(l.Servers)-1 {
			continue // they share their hosts
		}
		for _, name := range s.hosts.names() {
			h := s.hosts.at(name)
			fmt.Fprintf(b, "host %s%s\n", name, map[bool]string{true: " plain"}[h.Plain])
			h.write(b)
		}
	}
}

func (s *EdgeServer) refused() string {
	if s.Refusal == nil {
		return ""
	}
	return fmt.Sprintf("%s: %s", s.Refusal.Code, s.Refusal.Message)
}

// shown words an endpoint as an address.
func (e *Endpoint) shown() string {
	if e.TLS {
		return fmt.Sprintf("https://%s:%d", e.Host, e.Port)
	}
	return fmt.Sprintf("http://%s:%d", e.Host, e.Port)
}

// writeAction writes what a rule does beside calling a backend.
func (r *Rule) writeAction(b *bytes.Buffer) {
	a := r.Action
	if a == nil {
		return
	}
	taken := "all of the path"
	if r.Matched >= 0 {
		taken = fmt.Sprintf("%d bytes of the path", r.Matched)
	}
	if d := a.Redirect; d != nil {
		fmt.Fprintf(b, "    redirect %d", d.Status)
		for _, part := range []struct {
			show bool
			text string
		}{
			{d.Scheme != "", " scheme=" + d.Scheme}, {d.Authority != "", " host=" + d.Authority}, {d.Port != 0, fmt.Sprintf(" port=%d", d.Port)},
			{d.DerivePort, " port=of-scheme"}, {d.Path != "", " path=" + d.Path}, {d.HasPrefix, fmt.Sprintf(" path=%s in place of %s", d.Prefix, taken)},
		} {
			if part.show {
				b.WriteString(part.text)
			}
		}
		b.WriteByte('\n')
	}
	if a.Direct != nil {
		fmt.Fprintf(b, "    answer %d %q\n", a.Direct.Status, a.Direct.Body)
	}
	if f := a.Fault; f != (Fault{}) {
		fmt.Fprintf(b, "    fault delay=%s of %g abort=%d of %g\n", f.Delay, f.DelayShare, f.Abort, f.AbortShare)
	}
	if w := a.Rewrite; w != (Rewrite{}) {
		b.WriteString("    rewrite")
		if w.Authority != "" {
			fmt.Fprintf(b, " host=%s", w.Authority)
		}
		if w.HasPath {
			fmt.Fprintf(b, " path=%s in place of %s", w.Path, taken)
		}
		if w.Regex != nil {
			fmt.Fprintf(b, " path=%q in place of %q", w.Replace, w.Regex)
		}
		b.WriteByte('\n')
	}
	a.Headers.write(b, "    ")
	for i := range a.Mirrors {
		m := &a.Mirrors[i]
		if m.Target == nil {
			fmt.Fprintf(b, "    mirror %g refused %s: %s\n", m.Share, m.Refusal.Code, m.Refusal.Message)
			continue
		}
		fmt.Fprintf(b, "    mirror %g ", m.Share)
		m.Target.write(b)
		b.WriteByte('\n')
	}
}

func (e *HeaderEdits) write(b *bytes.Buffer, indent string) {
	for _, d := range []struct {
		name string
		edit *HeaderEdit
	}{{"request", &e.Request}, {"response", &e.Response}} {
		if d.edit.Empty() {
			continue
		}
		fmt.Fprintf(b, "%s%s headers", indent, d.name)
		for _, name := range d.edit.Remove {
			fmt.Fprintf(b, " remove %s", name)
		}
		for _, h := range d.edit.Set {
			fmt.Fprintf(b, " set %s=%q", h.Name, h.Value)
		}
		for _, h := range d.edit.Add {
			fmt.Fprintf(b, " add %s=%q", h.Name, h.Value)
		}
		b.WriteByte('\n')
	}
}
