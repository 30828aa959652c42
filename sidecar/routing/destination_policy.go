package routing

import (
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remora.dev/remora/apis/istio"
	"remora.dev/remora/apis/v1beta1"
)

// calling is how a backend is called.
type calling struct {
	lb      *istio.LoadBalancer
	pool    *istio.ConnectionPool
	outlier *istio.OutlierDetection
	tls     *istio.ClientTLS
	of      *destinationRule // which tls is of
}

// over puts what a policy says in place of what was said before, part by part; for a port that it knows, all of it.
func (c calling) over(d *destinationRule, p *istio.TrafficPolicy, port uint16) calling {
	if p == nil {
		return c
	}
	for i := range p.PortLevelSettings {
		if own := &p.PortLevelSettings[i]; own.Port != nil && own.Port.Number == int64(port) {
			return calling{own.LoadBalancer, own.ConnectionPool, own.OutlierDetection, own.TLS, d}
		}
	}
	if p.LoadBalancer != nil {
		c.lb = p.LoadBalancer
	}
	if p.ConnectionPool != nil {
		c.pool = p.ConnectionPool
	}
	if p.OutlierDetection != nil {
		c.outlier = p.OutlierDetection
	}
	if p.TLS != nil {
		c.tls, c.of = p.TLS, d
	}
	return c
}

// callingBy merges the rules for a backend: the first that says something about all servers counts, and over it what the subset says.
func callingBy(found []*destinationRule, s *istio.Subset, of *destinationRule, port uint16) (calling, *Refusal) {
	var out calling
	tokens := false
	for _, d := range found {
		tokens = tokens || d.rule.Annotations[istio.BalanceAnnotation] == string(v1beta1.LeastTokens)
		if d.rule.Remarks.WrongIn("spec.trafficPolicy.tls") || d.rule.Remarks.WrongIn("spec.trafficPolicy.portLevelSettings") {
			return out, d.unreadableTLS()
		}
	}
	if i := slices.IndexFunc(found, func(d *destinationRule) bool { return d.rule.Spec.TrafficPolicy != nil }); i >= 0 {
		out = out.over(found[i], found[i].rule.Spec.TrafficPolicy, port)
	}
	if s != nil {
		out = out.over(of, s.TrafficPolicy, port)
	}
	if tokens && valueOf(out.lb).ConsistentHash == nil {
		lb := valueOf(out.lb)
		lb.Simple = string(v1beta1.LeastTokens)
		out.lb = &lb
	}
	return out, nil
}

func judgeTrafficPolicy(say critic, field string, p *istio.TrafficPolicy) {
	if p == nil {
		return
	}
	judge := func(field string, c calling) {
		balanceOf(say, field+".loadBalancer", c.lb)
		poolOf(say, field, &c, &TrafficPolicy{}, &Balance{})
		judgeClientTLS(say, field+".tls", c.tls)
	}
	judge(field, calling{p.LoadBalancer, p.ConnectionPool, p.OutlierDetection, p.TLS, nil})
	ports := map[int64]bool{}
	for i := range p.PortLevelSettings {
		own, at := &p.PortLevelSettings[i], fmt.Sprintf("%s.portLevelSettings[%d]", field, i)
		if n := valueOf(own.Port).Number; n < 1 || n > 65535 {
			say.wrong(at+".port.number", "%d is not a port: use 1 to 65535, as the Service has it", n)
		} else if ports[n] {
			say.wrong(at+".port.number", "%d has settings already: keep one", n)
		} else {
			ports[n] = true
		}
		judge(at, calling{own.LoadBalancer, own.ConnectionPool, own.OutlierDetection, own.TLS, nil})
	}
}

// maxIstio bounds the numbers of Istio's policies, which have no bounds of their own.
const maxIstio = 65535

// poolOf compiles connectionPool and outlierDetection.
func poolOf(say critic, field string, c *calling, p *TrafficPolicy, b *Balance) {
	number := func(to *int, at string, n, most int32) {
		switch {
		case n == 0: // which is absent, in Istio's words
		case n < 0:
			say.wrong(field+at, "%d is out of range: use 1 to %d", n, most)
		default:
			*to = int(min(n, most)) // more is no limit at all
		}
	}
	duration := func(to *time.Duration, at string, d *metav1.Duration) {
		switch {
		case d == nil:
		case d.Duration < time.Millisecond:
			say.wrong(field+at, "%s is too short: use a duration such as 10s", d.Duration)
		default:
			*to = d.Duration
		}
	}
	if t := valueOf(c.pool).TCP; t != nil {
		number(&p.MaxConnections, ".connectionPool.tcp.maxConnections", t.MaxConnections, maxIstio)
		duration(&p.ConnectTimeout, ".connectionPool.tcp.connectTimeout", t.ConnectTimeout)
		duration(&p.MaxConnectionAge, ".connectionPool.tcp.maxConnectionDuration", t.MaxConnectionDuration)
	}
	if h := valueOf(c.pool).HTTP; h != nil {
		const at = ".connectionPool.http."
		number(&p.MaxPending, at+"http1MaxPendingRequests", h.HTTP1MaxPendingRequests, maxIstio)
		number(&p.MaxRequests, at+"http2MaxRequests", h.HTTP2MaxRequests, 1<<30)
		number(&p.MaxRequestsPerConnection, at+"maxRequestsPerConnection", h.MaxRequestsPerConnection, 1<<30)
		duration(&p.IdleTimeout, at+"idleTimeout", h.IdleTimeout)
	}
	o := c.outlier
	if o == nil {
		return
	}
	const at = ".outlierDetection."
	after := func(to *int, n *uint32) {
		if n != nil {
			*to = int(min(*n, maxIstio))
		}
	}
	number(&p.EjectAfterGatewayErrors, at+"consecutiveErrors", o.ConsecutiveErrors, maxIstio)
	after(&p.EjectAfterGatewayErrors, o.ConsecutiveGatewayErrors)
	after(&p.EjectAfter, o.Consecutive5xxErrors)
	duration(&p.EjectionTime, at+"baseEjectionTime", o.BaseEjectionTime)
	if p.EjectionTime > maxEjectionTime {
		say.note(InvalidValue, field+at+"baseEjectionTime", "%s is over 24h, which is used: use less, it is longer each time that a server fails again", p.EjectionTime)
		p.EjectionTime = maxEjectionTime
	}
	b.MaxEjected = istioMaxEjected
	percent := func(to *int, at string, n int32) {
		if n < 0 || n > 100 {
			say.wrong(field+at, "%d is not a percentage: use 0 to 100", n)
		} else if n != 0 {
			*to = int(n)
		}
	}
	percent(&b.MaxEjected, at+"maxEjectionPercent", o.MaxEjectionPercent)
	percent(&b.MinHealthy, at+"minHealthPercent", o.MinHealthPercent)
}

// istioMaxEjected is Istio's default where outlierDetection says nothing about it.
const istioMaxEjected = 10

func judgeClientTLS(say critic, field string, t *istio.ClientTLS) {
	if t == nil {
		return
	}
	switch t.Mode {
	case "", istio.TLSDisable, istio.TLSSimple, istio.TLSMutual:
	case istio.TLSIstioMutual:
		say.note(FieldNotHonoured, field+".mode", "is ISTIO_MUTUAL, which needs certificates that only Istio has, so calls are refused: use SIMPLE or MUTUAL with credentialName, or DISABLE")
	default:
		say.note(InvalidValue, field+".mode", "%s is not a mode, so calls are refused: use DISABLE, SIMPLE or MUTUAL", quoted(t.Mode))
	}
	if t.Mode == istio.TLSMutual && t.CredentialName == "" {
		say.note(FieldNotHonoured, field+".credentialName", "is missing, and files with certificates are not honoured, so calls are refused: name a Secret with tls.crt, tls.key and ca.crt")
	}
	if t.SNI != "" && !isServerName(t.SNI) {
		say.wrong(field+".sni", "%s is not a host name: write one such as api.example.com", quoted(t.SNI))
	}
	if n := len(t.SubjectAltNames); n > 1 {
		say.note(FieldNotHonoured, field+".subjectAltNames", "has %d names, of which the first host name is honoured: the certificate must have that one", n)
	} else if n == 1 && !isServerName(t.SubjectAltNames[0]) {
		say.note(FieldNotHonoured, field+".subjectAltNames[0]", "is not a host name, and not honoured: the certificate must be that of the Service's name, or of sni")
	}
}

func isServerName(name string) bool {
	f := findings{}
	judgeHost(&f, "", name)
	return len(f.list) == 0
}

// speak has an endpoint spoken to as tls says. name is what its certificate must have where nothing else is said.
func (c *compiler) speak(e *Endpoint, how *calling, name string) *Refusal {
	t := how.tls
	if t == nil || t.Mode == istio.TLSDisable || t.Mode == "" {
		if t != nil {
			e.TLS = false
		}
		if e.TLS {
			e.ServerName, e.TrustedCAs = name, c.trusted.pem
		}
		return nil
	}
	refuse := func(format string, args ...any) *Refusal {
		return &Refusal{InvalidConfiguration, how.of.object.String() + " " + fmt.Sprintf(format, args...)}
	}
	e.TLS, e.ServerName = true, name
	switch {
	case t.Mode == istio.TLSIstioMutual:
		return refuse("has tls.mode ISTIO_MUTUAL, which needs certificates that only Istio has: use SIMPLE, MUTUAL or DISABLE")
	case t.Mode != istio.TLSSimple && t.Mode != istio.TLSMutual:
		return refuse("has a tls.mode that is not known: use DISABLE, SIMPLE or MUTUAL")
	case t.Mode == istio.TLSMutual && t.CredentialName == "":
		return refuse("has tls.mode MUTUAL without credentialName: name a Secret with tls.crt, tls.key and ca.crt")
	}
	if i := slices.IndexFunc(t.SubjectAltNames, isServerName); i >= 0 {
		e.ServerName = strings.ToLower(t.SubjectAltNames[i])
	} else if t.SNI != "" && isServerName(t.SNI) {
		e.ServerName = strings.ToLower(t.SNI)
	}
	if t.CredentialName != "" {
		if r := c.credential(e, how, t.Mode == istio.TLSMutual); r != nil {
			return r
		}
	}
	if e.CABundle == "" {
		e.TrustedCAs = c.trusted.pem
	}
	return nil
}

// credential takes certificates from the Secret that credentialName names, which is in the namespace of who calls. Only rules of that
// namespace may: another's would have a gateway show its certificates to whom that one likes.
func (c *compiler) credential(e *Endpoint, how *calling, mutual bool) *Refusal {
	namespace, name := how.of.rule.Namespace, how.tls.CredentialName
	if c.workload != nil {
		namespace = c.workload.Namespace
	}
	if c.presume || c.workload == nil { // or it is not known whose Secret it is
		return nil
	}
	if how.of.rule.Namespace != namespace {
		return &Refusal{CertificateNotFound, fmt.Sprintf("%s names a Secret in credentialName, which only rules of namespace %s can: move it there, with the route, or leave credentialName out", how.of.object, namespace)}
	}
	s := c.secrets[secretID{namespace, name}]
	if s == nil {
		return &Refusal{CertificateNotFound, fmt.Sprintf("Secret %s/%s, which %s names, is not there: create it", namespace, name, how.of.object)}
	}
	for _, ca := range []string{"ca.crt", "cacert"} {
		if bundle := s.Data[ca].Reveal(); bundle != "" {
			f := findings{}
			judgeBundle(&f, ca, []byte(bundle))
			if len(f.list) > 0 {
				return &Refusal{SecretInvalid, fmt.Sprintf("%s of Secret %s/%s is no bundle of certificates: correct it", ca, namespace, name)}
			}
			e.CABundle = bundle
			break
		}
	}
	if !mutual {
		return nil
	}
	chain, key := s.Data["tls.crt"].Reveal(), s.Data["tls.key"]
	if _, err := tls.X509KeyPair([]byte(chain), []byte(key.Reveal())); err != nil {
		return &Refusal{SecretInvalid, fmt.Sprintf("Secret %s/%s does not hold a certificate and its key in tls.crt and tls.key: correct it", namespace, name)}
	}
	e.ClientCert, e.ClientKey = chain, key
	return nil
}
