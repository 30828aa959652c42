package routing

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// WriteTo writes the table as text, for people: what each owned host does. It shows no key.
func (t *Table) WriteTo(w io.Writer) (int64, error) {
	var b bytes.Buffer
	t.write(&b)
	n, err := w.Write(b.Bytes())
	return int64(n), err
}

func (t *Table) write(b *bytes.Buffer) {
	if t.incomplete {
		fmt.Fprintln(b, "incomplete: calls to hosts that are not listed are refused")
	}
	if t.trusted.count > 0 {
		fmt.Fprintf(b, "trusted-ca: %d of the installation's own, beside the system's, where there is no own-ca\n", t.trusted.count)
	}
	for _, h := range t.named() {
		if h.host == t.rest {
			fmt.Fprintf(b, "every other host\n")
		} else {
			fmt.Fprintf(b, "host %s\n", strings.Join(h.names, " "))
		}
		h.host.write(b)
	}
	for _, l := range t.listeners {
		l.write(b)
	}
}

// everyOther is the name of the host that stands for every other.
const everyOther = "*"

// namedHost is a host with the names that it has, its own first.
type namedHost struct {
	names []string
	host  *Host
}

// named gives the hosts of a sidecar in order.
func (t *Table) named() (all []namedHost) {
	names := map[*Host][]string{}
	for name, h := range t.hosts {
		names[h] = append(names[h], name)
	}
	if !t.incomplete {
		for name, h := range t.retired {
			names[h] = append(names[h], name)
		}
	}
	for h, of := range names {
		slices.Sort(of)
		if i := slices.Index(of, h.Name); i > 0 {
			copy(of[1:i+1], of[:i])
			of[0] = h.Name
		}
		all = append(all, namedHost{of, h})
	}
	// Hosts of two namespaces may have one name of their own, but have no name in common.
	slices.SortFunc(all, func(x, y namedHost) int {
		return cmp.Or(strings.Compare(x.host.Name, y.host.Name), slices.Compare(x.names, y.names))
	})
	for _, w := range t.wildcards {
		all = append(all, namedHost{[]string{w.host.Name}, w.host})
	}
	if t.rest != nil && !t.incomplete {
		all = append(all, namedHost{[]string{everyOther}, t.rest})
	}
	return all
}

func (h *Host) write(b *bytes.Buffer) {
	if h.Refusal != nil {
		fmt.Fprintf(b, "  refused %s: %s\n", h.Refusal.Code, h.Refusal.Message)
		return
	}
	if len(h.Rules) == 0 {
		fmt.Fprintf(b, "  no rules: %s\n", NoRuleMatches)
	}
	for i, r := range h.Rules {
		fmt.Fprintf(b, "  rule %d %s of %s\n", i+1, cmp.Or(r.Name, "-"), r.Owner)
		for j := range r.matches {
			fmt.Fprintf(b, "    %s %s\n", [...]string{"when", "or"}[min(j, 1)], r.matches[j].String())
		}
		if r.Timeouts != defaultTimeouts {
			fmt.Fprintf(b, "    timeouts request=%s firstToken=%s idle=%s\n", limit(r.Timeouts.Request), limit(r.Timeouts.FirstToken), limit(r.Timeouts.Idle))
		}
		if r.Retries != defaultRetries {
			fmt.Fprintf(b, "    retries %s\n", r.Retries)
		}
		if r.MaxBody != DefaultMaxBody {
			fmt.Fprintf(b, "    limits requestBody=%s\n", size(r.MaxBody))
		}
		r.writeAction(b)
		for j := range r.Levels {
			r.Levels[j].write(b, j)
		}
	}
}

func limit(d time.Duration) string {
	if d == 0 {
		return "none"
	}
	return d.String()
}

// String gives the number of attempts and the reasons for them.
func (r Retries) String() string {
	return strings.Join(append([]string{fmt.Sprintf("attempts=%d", r.Attempts)}, r.reasons()...), " ")
}

// reasons are what another attempt follows on.
func (r Retries) reasons() []string {
	out := []string{}
	for _, c := range []struct {
		on   bool
		name string
	}{
		{r.ConnectFailure, "connect-failure"}, {r.RateLimited, "rate-limited"}, {r.Reset, "reset"},
		{r.GatewayError, "gateway-error"}, {r.ServerError, "5xx"}, {r.FirstToken, "first-token"},
	} {
		if c.on {
			out = append(out, c.name)
		}
	}
	return out
}

// String gives what is other than by default, with a space before each.
func (p TrafficPolicy) String() string {
	var b strings.Builder
	for _, part := range []struct {
		show  bool
		name  string
		value any
	}{
		{p.MaxConnections != DefaultMaxConnections, "connections", p.MaxConnections},
		{p.MaxPending != DefaultMaxPending, "pending", p.MaxPending},
		{p.ConnectTimeout != DefaultConnectTimeout, "connect", p.ConnectTimeout},
		{p.MaxConnectionAge != DefaultMaxConnectionAge, "age", limit(p.MaxConnectionAge)},
		{p.EjectAfter != DefaultEjectAfter, "eject-after", p.EjectAfter},
		{p.EjectionTime != DefaultEjectionTime, "ejection", p.EjectionTime},
		{p.MaxRequests != 0, "requests", p.MaxRequests},
		{p.MaxRequestsPerConnection != 0, "requests-of-connection", p.MaxRequestsPerConnection},
		{p.IdleTimeout != 0, "idle", p.IdleTimeout},
		{p.EjectAfterGatewayErrors != 0, "eject-after-gateway-errors", p.EjectAfterGatewayErrors},
	} {
		if part.show {
			fmt.Fprintf(&b, " %s=%v", part.name, part.value)
		}
	}
	return b.String()
}

func (l *Level) write(b *bytes.Buffer, priority int) {
	for i := range l.Backends {
		back := &l.Backends[i]
		fmt.Fprintf(b, "    %d: %d/%d ", priority, back.Weight, l.total)
		if back.Refusal != nil {
			fmt.Fprintf(b, "refused %s: %s\n", back.Refusal.Code, back.Refusal.Message)
			continue
		}
		back.Target.write(b)
		b.WriteByte('\n')
		if back.Headers != nil {
			back.Headers.write(b, "      ")
		}
	}
}

func (t *Target) write(b *bytes.Buffer) {
	e := t.Endpoint.Value()
	fmt.Fprintf(b, "%s%s", e.shown(), t.Path)
	for _, part := range []struct {
		show bool
		text string
	}{
		{e.TLS && e.ServerName != e.Host, " sni=" + e.ServerName},
		{e.CABundle != "", " own-ca"},
		{e.ClientCert != "", " client-certificate"},
		{t.Servers != (ServersID{}), " servers=" + t.Servers.String() + " balance=" + t.Balance.String()},
		{t.Authority != "" && !strings.HasPrefix(t.Authority, e.Host), " host=" + t.Authority},
		{t.Model != "", " model=" + t.Model},
		{t.Stream, " stream"},
		{t.Keyed(), t.keyNames()},
		{t.RevokedFor >= 0, " revoked-for=" + t.RevokedFor.String()},
		{t.UIDs != nil, " uids=" + strings.Trim(strings.ReplaceAll(fmt.Sprint(t.UIDs), " ", ","), "[]")},
		{t.Keyed() && t.Auth != AuthBearer, " in=" + t.Auth.header()},
		{t.Query != "", " query=" + t.shownQuery},
		{t.Policy != defaultPolicy, t.Policy.String()},
	} {
		if part.show {
			b.WriteString(part.text)
		}
	}
}

// keyNames names the keys, with their shares where there are several.
func (t *Target) keyNames() string {
	var b strings.Builder
	for i := range t.Keys {
		k := &t.Keys[i]
		b.WriteString(" key=" + strings.ReplaceAll(k.Name, " ", ":"))
		if len(t.Keys) > 1 {
			fmt.Fprintf(&b, "*%d", k.Weight)
		}
	}
	return b.String()
}

// reveal gives all keys, for the digest.
func (t *Target) reveal() string {
	var b strings.Builder
	for i := range t.Keys {
		b.WriteString(t.Keys[i].Key.Reveal())
		b.WriteByte(0)
	}
	return b.String()
}

// String gives the match as a condition.
func (m *match) String() string {
	var parts []string
	for _, h := range m.headers {
		parts = append(parts, "header "+h.name+h.value.String())
	}
	for _, k := range slices.Sorted(maps.Keys(m.labels)) {
		parts = append(parts, fmt.Sprintf("label %s=%q", k, m.labels[k]))
	}
	if m.model != nil {
		parts = append(parts, "model"+m.model.String())
	}
	for _, part := range []struct {
		name string
		is   *stringMatch
	}{{"method", m.method}, {"authority", m.authority}, {"path", m.uri}} {
		if part.is != nil {
			parts = append(parts, part.name+part.is.String())
		}
	}
	for _, h := range m.without {
		parts = append(parts, "not header "+h.name+h.value.String())
	}
	for _, q := range m.query {
		parts = append(parts, fmt.Sprintf("parameter %q%s", q.name, q.value.String()))
	}
	for _, more := range m.and {
		parts = append(parts, more.String())
	}
	if len(parts) == 0 {
		return "always"
	}
	return strings.Join(parts, " and ")
}

// String gives the comparison.
func (m *stringMatch) String() string {
	if m.kind == "" {
		return " is present"
	}
	if m.fold {
		return fmt.Sprintf(" %s %q in any case", m.kind, m.value)
	}
	return fmt.Sprintf(" %s %q", m.kind, m.value)
}

// digest names the table: its text, and the keys and certificates that the text does not show.
func (t *Table) digest() string {
	var b bytes.Buffer
	t.write(&b)
	sum := sha256.New()
	sum.Write(b.Bytes())
	var hidden []string
	if t.trusted.count > 0 {
		hidden = append(hidden, t.trusted.pem.Value())
	}
	for h, r := range t.rules() {
		name := ""
		if h != nil {
			name = h.Name
		}
		for t := range r.targets() {
			e := t.Endpoint.Value()
			hidden = append(hidden, strings.Join([]string{name, t.reveal(), t.Query, e.CABundle, e.ClientCert, e.ClientKey.Reveal()}, "\x00"))
		}
	}
	for _, l := range t.listeners {
		for _, s := range l.Servers {
			for _, certificate := range s.Certificate {
				hidden = append(hidden, certificate.Chain+"\x00"+certificate.Key.Reveal())
			}
			hidden = append(hidden, s.ClientCAs)
		}
	}
	slices.Sort(hidden)
	for _, s := range hidden {
		part := sha256.Sum256([]byte(s))
		sum.Write(part[:])
	}
	return hex.EncodeToString(sum.Sum(nil)[:6])
}
