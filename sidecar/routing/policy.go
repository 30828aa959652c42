package routing

import (
	"fmt"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remora.dev/remora/apis/v1beta1"
)

// maxEjectionTime bounds how long a provider is left alone the first time, since that is doubled.
const maxEjectionTime = 24 * time.Hour

func judgeAuthScheme(f *findings, s v1beta1.AuthScheme) {
	if _, ok := authSchemes[s]; !ok { // it may be the key that is written there, so it is not shown
		f.invalid(InvalidValue, "spec.authScheme", "is not a scheme: use %s, %s or %s", v1beta1.AuthBearer, v1beta1.AuthAPIKey, v1beta1.AuthXAPIKey)
	}
}

var authSchemes = map[v1beta1.AuthScheme]AuthScheme{
	"": AuthBearer, v1beta1.AuthBearer: AuthBearer, v1beta1.AuthAPIKey: AuthAPIKey, v1beta1.AuthXAPIKey: AuthXAPIKey,
}

// header is the header of a scheme, as people write it.
func (a AuthScheme) header() string {
	return [...]string{"Authorization", "api-key", "x-api-key"}[a]
}

// judgePolicy finds what is wrong with a traffic policy.
func judgePolicy(f *findings, p *v1beta1.TrafficPolicy) {
	if p == nil {
		return
	}
	within := func(field string, n *int32, least, most int32, remedy string) {
		if n != nil && (*n < least || *n > most) {
			f.invalid(InvalidValue, "spec.trafficPolicy."+field, "%d is out of range: use %d to %d%s", *n, least, most, remedy)
		}
	}
	judgeLoadBalancer(f, "spec.trafficPolicy.loadBalancer", p.LoadBalancer)
	if pool := p.ConnectionPool; pool != nil {
		if t := pool.TCP; t != nil {
			within("connectionPool.tcp.maxConnections", t.MaxConnections, 1, 65535, "")
			positive(f, "spec.trafficPolicy.connectionPool.tcp.connectTimeout", t.ConnectTimeout)
			if d := t.MaxConnectionDuration; d != nil && d.Duration < 0 {
				f.invalid(InvalidValue, "spec.trafficPolicy.connectionPool.tcp.maxConnectionDuration", "%s is negative: use a duration such as 10m, or 0s for no limit", d.Duration)
			}
		}
		if h := pool.HTTP; h != nil {
			within("connectionPool.http.http1MaxPendingRequests", h.HTTP1MaxPendingRequests, 0, 65535, ", where 0 lets none wait")
		}
	}
	if o := p.OutlierDetection; o != nil {
		const base = "spec.trafficPolicy.outlierDetection.baseEjectionTime"
		within("outlierDetection.consecutive5xxErrors", o.Consecutive5xxErrors, 0, 1000, ", where 0 leaves the provider never alone")
		positive(f, base, o.BaseEjectionTime)
		if d := o.BaseEjectionTime; d != nil && d.Duration > maxEjectionTime {
			f.invalid(InvalidValue, base, "%s is over 24h: use less, it is doubled each time that the provider fails again", d.Duration)
		}
	}
}

func positive(f *findings, field string, d *metav1.Duration) {
	if d != nil && d.Duration <= 0 {
		f.invalid(InvalidValue, field, "%s is no time at all: use a duration such as 10s", d.Duration)
	}
}

func policyOf(p *v1beta1.TrafficPolicy) TrafficPolicy {
	out := defaultPolicy
	if p == nil {
		return out
	}
	number := func(to *int, from *int32) {
		if from != nil {
			*to = int(*from)
		}
	}
	duration := func(to *time.Duration, from *metav1.Duration) {
		if from != nil {
			*to = from.Duration
		}
	}
	if pool := p.ConnectionPool; pool != nil {
		if t := pool.TCP; t != nil {
			number(&out.MaxConnections, t.MaxConnections)
			duration(&out.ConnectTimeout, t.ConnectTimeout)
			duration(&out.MaxConnectionAge, t.MaxConnectionDuration)
		}
		if h := pool.HTTP; h != nil {
			number(&out.MaxPending, h.HTTP1MaxPendingRequests)
		}
	}
	if o := p.OutlierDetection; o != nil {
		number(&out.EjectAfter, o.Consecutive5xxErrors)
		duration(&out.EjectionTime, o.BaseEjectionTime)
	}
	return out
}

// The least and the most that a limit of bodies can be: less is a unit forgotten, more does not fit in memory.
const (
	minMaxBody = 1 << 10
	maxMaxBody = 1 << 30
)

func judgeLimits(f *findings, field string, l *v1beta1.Limits) {
	if l == nil || l.RequestBody == nil {
		return
	}
	q, at := l.RequestBody, field+".requestBody"
	switch {
	case q.Cmp(*resource.NewQuantity(minMaxBody, resource.BinarySI)) < 0:
		f.invalid(InvalidValue, at, "%s is less than 1Ki (1024 bytes): use a size such as 512Ki or 64Mi", q)
	case q.Cmp(*resource.NewQuantity(maxMaxBody, resource.BinarySI)) > 0:
		f.invalid(InvalidValue, at, "%s is more than 1Gi: use a size such as 64Mi, since bodies are held in memory", q)
	}
}

func maxBodyOf(l *v1beta1.Limits) int64 {
	if l == nil || l.RequestBody == nil {
		return DefaultMaxBody
	}
	return l.RequestBody.Value()
}

// size words a number of bytes as limits are written.
func size(n int64) string { return resource.NewQuantity(n, resource.BinarySI).String() }

// most words a limit of which 0 is none.
func most(n int) string {
	if n == 0 {
		return "any number"
	}
	return strconv.Itoa(n)
}

// fills says what is different about how much a provider is asked to bear.
func (p TrafficPolicy) fills(now TrafficPolicy) (out []fill) {
	for _, part := range []struct {
		of      string
		was, is string
	}{
		{"connections from each pod: at most %s instead of %s", strconv.Itoa(p.MaxConnections), strconv.Itoa(now.MaxConnections)},
		{"calls of each pod that may wait for a connection: %s instead of %s", strconv.Itoa(p.MaxPending), strconv.Itoa(now.MaxPending)},
		{"time limit to connect %s instead of %s", limitText(p.ConnectTimeout), limitText(now.ConnectTimeout)},
		{"time limit for the use of a connection %s instead of %s", limitText(p.MaxConnectionAge), limitText(now.MaxConnectionAge)},
		{"calls of each pod under way: at most %s instead of %s", most(p.MaxRequests), most(now.MaxRequests)},
		{"calls by one connection: at most %s instead of %s", most(p.MaxRequestsPerConnection), most(now.MaxRequestsPerConnection)},
		{"an unused connection is closed after %s instead of %s", limitText(p.IdleTimeout), limitText(now.IdleTimeout)},
		{"is left alone after %s gateway errors in a row instead of %s", most(p.EjectAfterGatewayErrors), most(now.EjectAfterGatewayErrors)},
	} {
		if part.was != part.is {
			out = append(out, fill{rankLimit, fmt.Sprintf(part.of, part.is, part.was)})
		}
	}
	switch {
	case p.EjectAfter != now.EjectAfter && now.EjectAfter == 0:
		out = append(out, fill{rankLimit, fmt.Sprintf("is never left alone any more, instead of after %d failures in a row", p.EjectAfter)})
	case p.EjectAfter == 0 && now.EjectAfter != 0:
		out = append(out, fill{rankLimit, fmt.Sprintf("is left alone for %s after %d failures in a row from now on", limitText(now.EjectionTime), now.EjectAfter)})
	case p.EjectAfter != now.EjectAfter:
		out = append(out, fill{rankLimit, fmt.Sprintf("is left alone after %d failures in a row instead of %d", now.EjectAfter, p.EjectAfter)})
	}
	if p.EjectionTime != now.EjectionTime && p.EjectAfter != 0 && now.EjectAfter != 0 {
		out = append(out, fill{rankLimit, fmt.Sprintf("is left alone for %s instead of %s", limitText(now.EjectionTime), limitText(p.EjectionTime))})
	}
	return out
}
