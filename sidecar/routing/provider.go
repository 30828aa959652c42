package routing

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/util/validation"

	"remora.dev/remora/apis/v1beta1"
)

var variable = regexp.MustCompile(`\$\{[^}]*\}`)

// judgeProvider finds what is wrong with a provider by itself.
func judgeProvider(f *findings, p *v1beta1.LLMProvider) {
	judgeName(f, p.Name)
	s := &p.Spec
	judgeHost(f, "spec.host", s.Host)
	judgePath(f, s.Path)
	judgePort(f, "spec.port", s.Port)
	if s.WorkloadSelector != nil {
		judgeLabels(f, "spec.workloadSelector.labels", s.WorkloadSelector.Labels)
	}
	judgeTLS(f, s.TLS)
	judgeAuthScheme(f, s.AuthScheme)
	judgeQuery(f, s.Query)
	judgePolicy(f, s.TrafficPolicy)
	judgeUse(f, s)
	const specific = "spec.configs.routeSpecificConfigs"
	if n := len(s.Configs.RouteSpecificConfigs); n > v1beta1.MaxRouteConfigs {
		f.invalid(InvalidValue, specific, "has %d entries: at most %d are allowed", n, v1beta1.MaxRouteConfigs)
	}
	judgeConfig(f, "spec.configs.defaultConfig.openAIConfig", s.TLS, &s.Configs.DefaultConfig.OpenAIConfig)
	for _, name := range slices.Sorted(maps.Keys(s.Configs.RouteSpecificConfigs)) {
		c := s.Configs.RouteSpecificConfigs[name]
		judgeConfig(f, specific+"["+name+"].openAIConfig", s.TLS, &c.OpenAIConfig)
	}
}

const nameRule = "use lower-case letters, digits, hyphens and dots, at most 253, with a letter or digit at both ends"

func judgeName(f *findings, name string) {
	if name == "" {
		f.invalid(InvalidValue, "metadata.name", "is required: give the object a name")
	} else if len(validation.IsDNS1123Subdomain(name)) > 0 {
		f.invalid(InvalidValue, "metadata.name", "%q cannot be a name: %s", name, nameRule)
	}
}

func judgePath(f *findings, path string) {
	bad := func(why string) { f.invalid(InvalidValue, "spec.path", "%q %s", presentable(path), why) }
	switch {
	case path == "":
	case path[0] != '/':
		bad("does not start with /: write a path such as " + v1beta1.DefaultPath)
	case strings.Contains(path, "#"):
		bad("has a fragment: remove # and what follows it")
	case strings.Contains(path, "?"):
		bad("has a query: remove ? and what follows it, and write parameters that each request is to have in spec.query")
	case slices.ContainsFunc(strings.Split(path, "/"), isDots):
		bad("has a . or .. in it, or what decodes to that: write the path that is meant")
	case strings.ContainsFunc(path, func(r rune) bool { return r <= ' ' || r > '~' }):
		bad("has characters that a path cannot have: write them as %XX")
	case len(path) > 1024:
		f.invalid(InvalidValue, "spec.path", "is longer than 1024 characters: write the path of the API only")
	case variable.MatchString(path):
		warnVariable(f, "spec.path", path)
	}
}

// isDots tells whether a segment of a path is, once decoded, the folder itself or the one above.
func isDots(segment string) bool {
	decoded, err := url.PathUnescape(segment)
	return err != nil || slices.ContainsFunc(strings.FieldsFunc(decoded, func(r rune) bool { return r == '/' || r == '\\' }),
		func(s string) bool { return s == "." || s == ".." })
}

// warnVariable shows the variable only: what it stands in may be a credential.
func warnVariable(f *findings, field, value string) {
	if name := variable.FindString(value); name != "" {
		f.warn(UnexpandedVariable, field, "%q looks like a variable that nothing has replaced: put the value in its place", name)
	}
}

func judgePort(f *findings, field string, port *int32) {
	if port != nil && (*port < 1 || *port > 65535) {
		f.invalid(InvalidValue, field, "%d is not a port: use 1 to 65535", *port)
	}
}

func judgeLabels(f *findings, field string, labels map[string]string) {
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		if len(validation.IsQualifiedName(k)) > 0 {
			f.invalid(InvalidValue, field, "%q cannot be the key of a label: write a name of letters, digits, -, _ and ., at most 63, with or without a domain and / before it", k)
		}
		if len(validation.IsValidLabelValue(labels[k])) > 0 {
			f.invalid(InvalidValue, field+"["+k+"]", "%q cannot be the value of a label, so no pod has it: use letters, digits, -, _ and ., at most 63, with a letter or digit at both ends", labels[k])
		}
	}
}

func judgeTLS(f *findings, tls *v1beta1.ProviderTLS) {
	if tls == nil {
		return
	}
	switch tls.Mode {
	case "", v1beta1.TLSSimple, v1beta1.TLSMutual:
	case v1beta1.TLSDisable:
		if tls.SNI != "" {
			f.invalid(InvalidValue, "spec.tls.sni", "has no meaning with mode DISABLE: remove it")
		}
		if tls.CABundle != nil {
			f.invalid(InvalidValue, "spec.tls.caBundle", "has no meaning with mode DISABLE: remove it")
		}
	default:
		f.invalid(InvalidValue, "spec.tls.mode", "%q is not a mode: use SIMPLE, MUTUAL or DISABLE", tls.Mode)
	}
	if mutual := tls.Mode == v1beta1.TLSMutual; mutual && tls.ClientCertificateRef == nil {
		f.invalid(InvalidValue, "spec.tls.clientCertificateRef", "is required with mode MUTUAL: name a Secret of type %s", v1beta1.SecretTypeTLS)
	} else if !mutual && tls.ClientCertificateRef != nil {
		f.invalid(InvalidValue, "spec.tls.clientCertificateRef", "has no meaning without mode MUTUAL: set spec.tls.mode to MUTUAL or remove it")
	}
	if tls.ClientCertificateRef != nil {
		judgeReference(f, "spec.tls.clientCertificateRef.name", tls.ClientCertificateRef.Name)
	}
	if tls.SNI != "" {
		judgeHost(f, "spec.tls.sni", tls.SNI)
	}
	if tls.CABundle != nil && tls.Mode != v1beta1.TLSDisable {
		judgeBundle(f, "spec.tls.caBundle", tls.CABundle)
	}
}

func judgeBundle(f *findings, field string, bundle []byte) {
	rest := bundle
	for n := 1; ; n++ {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		switch {
		case block == nil && n > 1 && !bytes.Contains(rest, []byte("-----BEGIN")):
			return // what follows the last certificate may be a comment, as what precedes it
		case block == nil:
			f.invalid(InvalidValue, field, "is not PEM: give certificates that start with -----BEGIN CERTIFICATE-----, encoded in base64")
			return
		case block.Type != "CERTIFICATE":
			f.invalid(InvalidValue, field, "holds a %s: give certificates only", block.Type)
			return
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			f.invalid(InvalidValue, field, "certificate %d cannot be read: %s: replace or remove it", n, err)
		}
	}
}

func judgeReference(f *findings, field, name string) {
	if name == "" {
		f.invalid(InvalidValue, field, "is required: name a Secret of this namespace")
	} else if len(validation.IsDNS1123Subdomain(name)) > 0 {
		f.invalid(InvalidValue, field, "%q cannot be the name of a Secret: %s", name, nameRule)
	} else if name == v1beta1.KeysSecret || name == v1beta1.AccessSecret {
		f.invalid(InvalidValue, field, "%s belongs to Remora, which writes it anew and lets no provider use it: name a Secret of your own", name)
	}
}

func judgeConfig(f *findings, field string, tls *v1beta1.ProviderTLS, c *v1beta1.OpenAIConfig) {
	if utf8.RuneCountInString(c.Model) > 256 {
		f.invalid(InvalidValue, field+".model", "is longer than 256 characters: write the name that the provider gives the model")
	}
	warnVariable(f, field+".model", c.Model)
	if c.APIKey != "" {
		switch {
		case strings.ContainsFunc(c.APIKey, func(r rune) bool { return r <= ' ' || r > '~' }):
			f.invalid(InvalidValue, field+".apiKey", "has white space, control or non-ASCII characters: write the key without quotes and line breaks")
		case len(c.APIKey) > 8192:
			f.invalid(InvalidValue, field+".apiKey", "is longer than 8192 characters: write one key only")
		case variable.MatchString(c.APIKey):
			f.warn(UnexpandedVariable, field+".apiKey", "looks like a variable that nothing has replaced: put the key in its place, or use apiKeyRef")
		default:
			f.warn(InlineKey, field+".apiKey", "whoever may read this object has the key: move it to a Secret and name that in apiKeyRef; the README has a line for that, under Keys")
		}
	}
	if ref := c.APIKeyRef; ref != nil {
		if c.APIKey != "" {
			f.invalid(InvalidValue, field+".apiKeyRef", "is given together with apiKey: remove one of them")
		}
		judgeKeyReference(f, field+".apiKeyRef", ref)
	}
	judgeKeyReferences(f, field+".apiKeyRefs", c)
	if hasKey(c) && tls != nil && tls.Mode == v1beta1.TLSDisable {
		if tls.AllowInsecureKey {
			f.warn(KeyInPlainText, "spec.tls.allowInsecureKey", "the key travels in plain text: whoever sees the traffic has it")
		} else {
			f.invalid(KeyInPlainText, "spec.tls.mode", "is DISABLE, so the key of %s would travel in plain text: use SIMPLE, or accept that with spec.tls.allowInsecureKey: true", field)
		}
	}
}

func hasKey(c *v1beta1.OpenAIConfig) bool {
	return c.APIKey != "" || c.APIKeyRef != nil || c.APIKeyRefs != nil
}

func secretKey(ref *v1beta1.SecretKeyReference) string {
	if ref.Key == "" {
		return v1beta1.DefaultAPIKeyName
	}
	return ref.Key
}

// configFor merges what a provider says for a rule over its default.
func configFor(p *v1beta1.LLMProvider, rule string) v1beta1.OpenAIConfig {
	c := p.Spec.Configs.DefaultConfig.OpenAIConfig
	specific, ok := p.Spec.Configs.RouteSpecificConfigs[rule]
	if !ok || rule == "" {
		return c
	}
	s := specific.OpenAIConfig
	if s.Model != "" {
		c.Model = s.Model
	}
	if s.Stream != nil {
		c.Stream = s.Stream
	}
	if hasKey(&s) {
		c.APIKey, c.APIKeyRef, c.APIKeyRefs = s.APIKey, s.APIKeyRef, s.APIKeyRefs
	}
	return c
}

// disjoint tells whether no pod can have the labels of both selectors.
func disjoint(a, b *v1beta1.WorkloadSelector) bool {
	if a == nil || b == nil {
		return false
	}
	for k, v := range a.Labels {
		if w, ok := b.Labels[k]; ok && v != w {
			return true
		}
	}
	return false
}

func selects(s *v1beta1.WorkloadSelector, w *Workload) bool {
	if s == nil || w == nil {
		return true
	}
	return subset(s.Labels, w.Labels)
}

func subset(some, all map[string]string) bool {
	for k, v := range some {
		if w, ok := all[k]; !ok || v != w {
			return false
		}
	}
	return true
}
