package proxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"

	"remora.dev/remora/sidecar/routing"
)

const (
	staleAddresses = 10 * time.Minute // how long addresses count after the last good answer of a DNS that fails since
	lookupPause    = 5 * time.Second  // during which a DNS that failed is not asked again, where such addresses are known
)

// resolver is Go's own: the same in every build, it needs no C library, and follows /etc/hosts and /etc/resolv.conf
// as they are at the time. It keeps nothing: TTLs are the business of the servers in resolv.conf.
var resolver = &net.Resolver{PreferGo: true}

// lookup finds the addresses of one host, anew for each connection.
type lookup struct {
	host    string
	queries []string
	log     logr.Logger

	mu     sync.Mutex
	worked []netip.Addr // the last that led to a connection
	asked  time.Time    // when DNS gave them
	failed time.Time    // when DNS failed since; zero: it did not
}

// queries are the names to ask for, each only where the one before does not exist.
//
// In a pod, resolv.conf has the resolver try its search domains first for every name with fewer than five dots, so that
// api.openai.com costs three or more queries, each for A and AAAA, that lead nowhere. So the name as it is comes first
// where it cannot be meant as an abbreviation: that of a Service in full, and that of a provider with TLS, whose
// certificate proves that it is the one who is meant. Without that proof, and for names such as llm.team or
// llm.team.svc, the order stays that of every other program in the pod: a namespace may be called like a top-level
// domain, and what is meant for it must not go to a stranger.
func queries(host string, encrypted bool) []string {
	host = strings.TrimSuffix(host, ".")
	abbreviated := strings.Count(host, ".") < 2 || strings.HasSuffix(host, ".svc")
	if strings.Contains(host, ".svc.") || encrypted && !abbreviated {
		return []string{host + ".", host}
	}
	return []string{host}
}

// find gives the addresses of the host, in the order in which to try them. While DNS fails, they are those that worked
// last, for some time, and stale is true; a name that does not exist is no failure.
func (l *lookup) find(ctx context.Context) (addrs []netip.Addr, stale bool, err error) {
	if a, err := netip.ParseAddr(l.host); err == nil {
		return []netip.Addr{a}, true, nil
	}
	known, failing := l.known(time.Now())
	if failing && len(known) > 0 {
		return known, true, nil
	}
	asking := ctx
	if end, ok := ctx.Deadline(); ok && len(known) > 0 {
		var cancel context.CancelFunc // what is known must get its chance
		asking, cancel = context.WithTimeout(ctx, time.Until(end)/2)
		defer cancel()
	}
	found, err := l.ask(asking)
	var dns *net.DNSError
	if err == nil || errors.As(err, &dns) && dns.IsNotFound {
		l.answered()
		return found, false, err
	}
	if len(known) == 0 || ctx.Err() != nil {
		return nil, false, err
	}
	l.mu.Lock()
	first := l.failed.IsZero()
	l.failed = time.Now()
	l.mu.Unlock()
	if first {
		l.log.Info("DNS fails: the addresses that worked last are used until it answers again", "code", routing.ConnectFailure, "host", l.host, "within", staleAddresses.String(), "cause", err.Error())
	}
	return known, true, nil
}

// known gives the addresses that may stand in for an answer, and whether DNS has failed just now.
func (l *lookup) known(now time.Time) (addrs []netip.Addr, failing bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.asked) > staleAddresses {
		return nil, false
	}
	return l.worked, now.Sub(l.failed) < lookupPause
}

func (l *lookup) ask(ctx context.Context) (found []netip.Addr, err error) {
	for _, name := range l.queries {
		found, err = resolver.LookupNetIP(ctx, "ip", name)
		var dns *net.DNSError
		if !errors.As(err, &dns) || !dns.IsNotFound {
			break
		}
	}
	for i := range found {
		found[i] = found[i].Unmap()
	}
	return found, err
}

func (l *lookup) answered() {
	l.mu.Lock()
	again := !l.failed.IsZero()
	l.failed = time.Time{}
	l.mu.Unlock()
	if again {
		l.log.Info("DNS answers again", "host", l.host)
	}
}

// lead notes that addresses of DNS led to a connection.
func (l *lookup) lead(addrs []netip.Addr) {
	l.mu.Lock()
	l.worked, l.asked = addrs, time.Now()
	l.mu.Unlock()
}
