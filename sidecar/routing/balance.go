package routing

import (
	"math"
	"net/textproto"
	"strings"

	"remora.dev/remora/apis/istio"
	"remora.dev/remora/apis/v1beta1"
)

// Hashes take memory in every sidecar, and once more for every backend: they are no larger than this, whatever is asked for.
const (
	MaxRingSize  = 1 << 17
	MaxTableSize = 655_373 // a prime number
)

// maxWarmup is how long a server can be called new.
const maxWarmup = 24 * 60 * 60 // seconds

// critic hears what is wrong with a policy. The zero value does not listen.
type critic struct {
	f        *findings
	severity Severity
}

// wrong says that a value is not used, and why.
func (c critic) wrong(field, format string, args ...any) { c.say(InvalidValue, field, format, args...) }

func (c critic) say(code Code, field, format string, args ...any) {
	if c.f == nil {
		return
	}
	if c.severity == Warning {
		format += " (until then it is as if it were not there)"
	}
	c.f.add(c.severity, code, field, format, args...)
}

// note says what is done otherwise than written. It is never more than a warning.
func (c critic) note(code Code, field, format string, args ...any) {
	if c.f != nil {
		c.f.warn(code, field, format, args...)
	}
}

var policies = map[string]BalancePolicy{
	"": LeastRequest, "UNSPECIFIED": LeastRequest,
	string(v1beta1.LeastRequest): LeastRequest, string(v1beta1.LeastConn): LeastRequest, string(v1beta1.RoundRobin): RoundRobin,
	string(v1beta1.Random): Random, string(v1beta1.LeastTokens): LeastTokens,
}

// String gives the word by which a policy is asked for.
func (p BalancePolicy) String() string {
	return [...]string{"LEAST_REQUEST", "ROUND_ROBIN", "RANDOM", "LEAST_TOKENS", "CONSISTENT_HASH"}[p]
}

var defaultBalance = Balance{MaxEjected: DefaultMaxEjected}

// balanceOf compiles how servers are chosen. passthrough says that they are not: the cluster chooses.
func balanceOf(say critic, field string, lb *istio.LoadBalancer) (b Balance, passthrough bool) {
	b = defaultBalance
	if lb == nil {
		return b, false
	}
	if h := lb.ConsistentHash; h != nil {
		if lb.Simple != "" && lb.Simple != "UNSPECIFIED" {
			say.wrong(field+".simple", "is given together with consistentHash, which is used: remove one of them")
		}
		b.hash(say, field+".consistentHash", h)
	} else if lb.Simple == string(v1beta1.Passthrough) {
		return b, true
	} else if p, ok := policies[lb.Simple]; ok {
		b.Policy = p
	} else {
		say.wrong(field+".simple", "%s is not a policy: use ROUND_ROBIN, LEAST_REQUEST, RANDOM, PASSTHROUGH or LEAST_TOKENS", quoted(lb.Simple))
	}
	b.warmup(say, field, lb)
	b.locality(say, field+".localityLbSetting", lb.LocalityLbSetting)
	return b, false
}

// hash compiles a consistent hash. Without anything to hash, the default policy stays.
func (b *Balance) hash(say critic, field string, h *istio.ConsistentHash) {
	var keys []HashKey
	if h.HTTPHeaderName != "" {
		if isToken(h.HTTPHeaderName) && len(h.HTTPHeaderName) <= 256 {
			keys = append(keys, HashKey{Header: textproto.CanonicalMIMEHeaderKey(h.HTTPHeaderName)})
		} else {
			say.wrong(field+".httpHeaderName", "%s is not the name of a header: use letters, digits and hyphens", quoted(h.HTTPHeaderName))
		}
	}
	if c := h.HTTPCookie; c != nil {
		if key, ok := cookieKey(say, field+".httpCookie", c); ok {
			keys = append(keys, key)
		}
	}
	if h.UseSourceIP {
		keys = append(keys, HashKey{SourceAddr: true})
	}
	if name := h.HTTPQueryParameterName; name != "" {
		if len(name) <= 256 {
			keys = append(keys, HashKey{Query: name})
		} else {
			say.wrong(field+".httpQueryParameterName", "is longer than 256 characters: use a shorter name")
		}
	}
	if len(keys) == 0 {
		say.wrong(field, "says nothing to hash: give one of httpHeaderName, httpCookie, useSourceIp and httpQueryParameterName")
		return
	} else if len(keys) > 1 {
		say.wrong(field, "says more than one thing to hash: keep one of httpHeaderName, httpCookie, useSourceIp and httpQueryParameterName")
	}
	b.Policy, b.Hash = ConsistentHash, keys[0]
	if h.RingHash != nil && h.Maglev != nil {
		say.wrong(field+".maglev", "is given together with ringHash, which is used: remove one of them")
	} else if h.Maglev != nil {
		b.TableSize = sizeOf(say, field+".maglev.tableSize", h.Maglev.TableSize, DefaultTableSize, MaxTableSize)
		if p := primeFrom(b.TableSize); p != b.TableSize {
			say.note(InvalidValue, field+".maglev.tableSize", "%d is not a prime number, as the table needs: %d is used", b.TableSize, p)
			b.TableSize = p
		}
		return
	}
	if h.RingHash != nil && h.RingHash.MinimumRingSize != nil {
		b.RingSize = sizeOf(say, field+".ringHash.minimumRingSize", h.RingHash.MinimumRingSize, DefaultRingSize, MaxRingSize)
		return
	}
	b.RingSize = sizeOf(say, field+".minimumRingSize", h.MinimumRingSize, DefaultRingSize, MaxRingSize)
}

func cookieKey(say critic, field string, c *istio.HTTPCookie) (HashKey, bool) {
	if !isToken(c.Name) || len(c.Name) > 256 {
		say.wrong(field+".name", "%s is not the name of a cookie: use letters, digits, - and _", quoted(c.Name))
		return HashKey{}, false
	}
	k := HashKey{Cookie: Cookie{Name: c.Name, Path: c.Path}}
	if strings.ContainsFunc(c.Path, func(r rune) bool { return r <= ' ' || r > '~' || r == ';' }) || len(c.Path) > 1024 {
		say.wrong(field+".path", "is not the path of a cookie: write one such as /")
		k.Cookie.Path = ""
	}
	if c.TTL != nil {
		seconds := math.Ceil(c.TTL.Seconds())
		if seconds < 0 {
			say.wrong(field+".ttl", "%s is negative: use a time such as 1h, or 0s for the client's session", c.TTL.Duration)
			return k, true
		}
		k.Cookie.Set, k.Cookie.MaxAge = true, int(seconds)
	}
	return k, true
}

func sizeOf(say critic, field string, size *int64, otherwise, most int) int {
	switch {
	case size == nil || *size == 0: // which is what Istio's API server makes of an absent one
		return otherwise
	case *size < 0:
		say.wrong(field, "%d is negative: use a number up to %d", *size, most)
		return otherwise
	case *size > int64(most):
		say.note(InvalidValue, field, "%d would take too much memory: %d is used", *size, most)
		return most
	}
	return int(*size)
}

// primeFrom gives the first prime number that is not less than n, or the largest that a table can have.
func primeFrom(n int) int {
	for n = max(n, 2); n < MaxTableSize; n++ {
		prime := true
		for d := 2; d*d <= n && prime; d++ {
			prime = n%d != 0
		}
		if prime {
			return n
		}
	}
	return MaxTableSize
}

func (b *Balance) warmup(say critic, field string, lb *istio.LoadBalancer) {
	duration, at := lb.WarmupDurationSecs, field+".warmupDurationSecs"
	s := SlowStart{MinPercent: 10, Aggression: 1}
	if w := lb.Warmup; w != nil {
		duration, at = w.Duration, field+".warmup.duration"
		number := func(to *float64, from *float64, field string, least, most float64) {
			switch {
			case from == nil:
			case *from >= least && *from <= most:
				*to = *from
			default:
				say.wrong(field, "%g is out of range: use %g to %g", *from, least, most)
			}
		}
		number(&s.MinPercent, w.MinimumPercent, field+".warmup.minimumPercent", 0, 100)
		number(&s.Aggression, w.Aggression, field+".warmup.aggression", 1, 100)
		if duration == nil {
			say.wrong(at, "is required: say how long a server is new, such as 30s")
		}
	}
	if duration == nil {
		return
	}
	s.WindowSeconds = duration.Seconds()
	if s.WindowSeconds <= 0 || s.WindowSeconds > maxWarmup {
		say.wrong(at, "%s is out of range: use a duration such as 30s, at most 24h", duration.Duration)
		return
	}
	b.SlowStart = s
}
