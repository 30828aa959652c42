package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"

	"remora.dev/remora/apis/v1beta1"
)

// need is what the author of a write must be allowed to read, because the write decides where a key in it goes.
type need struct {
	secret string // empty: the provider itself, which has a key in its text
	field  string // the first that names it
	why    string // what the write does with the key
}

// keySource is a key as a provider names it. A certificate has no key, so that the private key of one is never taken for a token that
// was named before.
type keySource struct{ secret, key string }

func (s keySource) isCertificate() bool { return s.key == "" }

// namedKey is where a provider names a key.
type namedKey struct {
	keySource
	field string
}

// needsOf gives what the author of a change must be allowed to read: every key that the provider would send and did not before, and
// all of its keys where they would go another way. A change that does neither needs nothing. It is pure.
//
// By that, behind every key of every stored provider there is somebody who might read it and wanted it to go there.
func needsOf(c *change) []need {
	if c.sameSpec || c.after == nil || !c.after.isProvider() {
		return nil
	}
	now, old, known := &c.after.content.Providers[0], &v1beta1.LLMProvider{}, true
	var moved []string
	switch {
	case c.before == nil:
	case c.before.isProvider():
		old = &c.before.content.Providers[0]
		moved = movedFields(&old.Spec, &now.Spec)
	default:
		known = false
	}
	named := map[keySource]bool{}
	for _, k := range keysNamed(old) {
		named[k.keySource] = true
	}
	elsewhere := "with another " + strings.Join(moved, ", ") + " it would go elsewhere, or in another way"
	if !known {
		elsewhere = "what was here before cannot be read, so it may go elsewhere"
	}

	var needs []need
	asked := map[string]bool{}
	for _, k := range keysNamed(now) {
		why := "this would send it to " + now.Spec.Host
		if named[k.keySource] {
			why = elsewhere
		}
		if asked[k.secret] || named[k.keySource] && len(moved) == 0 {
			continue
		}
		asked[k.secret] = true
		needs = append(needs, need{secret: k.secret, field: k.field, why: why})
	}
	if c.before == nil || known && len(moved) == 0 {
		return needs // what keys are in its text, the author has written, or they go where they went
	}
	written := map[string]bool{}
	for _, conf := range configsOf(old) {
		written[conf.APIKey] = true
	}
	for _, conf := range configsOf(now) {
		if conf.APIKey != "" && (written[conf.APIKey] || !known) {
			return append(needs, need{field: conf.field + ".apiKey", why: elsewhere})
		}
	}
	return needs
}

// movedFields gives the fields by which keys would go elsewhere, or in another way.
func movedFields(old, now *v1beta1.LLMProviderSpec) []string {
	var moved []string
	for i, w := range waysOf(now) {
		if !equality.Semantic.DeepEqual(w.value, waysOf(old)[i].value) {
			moved = append(moved, w.field)
		}
	}
	if exportsMore(old, now) {
		moved = append(moved, "spec.exportTo")
	}
	return moved
}

type way struct {
	field string
	value any
}

// waysOf gives what decides where the keys of a provider go, and how. What stands for a default is the same as nothing.
func waysOf(s *v1beta1.LLMProviderSpec) []way {
	var security v1beta1.ProviderTLS
	if s.TLS != nil {
		security = *s.TLS
	}
	security.Mode = cmp.Or(security.Mode, v1beta1.TLSSimple)
	return []way{
		{"spec.host", strings.ToLower(s.Host)},
		{"spec.port", portOf(s)},
		{"spec.tls", security},
		{"spec.path", cmp.Or(s.Path, v1beta1.DefaultPath)},
		{"spec.authScheme", cmp.Or(s.AuthScheme, v1beta1.AuthBearer)},
		{"spec.query", s.Query},
	}
}

func isPlain(s *v1beta1.LLMProviderSpec) bool {
	return s.TLS != nil && s.TLS.Mode == v1beta1.TLSDisable
}

func portOf(s *v1beta1.LLMProviderSpec) int32 {
	switch {
	case s.Port != nil:
		return *s.Port
	case isPlain(s):
		return v1beta1.DefaultPlainPort
	}
	return v1beta1.DefaultTLSPort
}

// exportsMore tells whether a namespace gets a provider that it had not. To take it away from one needs no right to read it.
func exportsMore(old, now *v1beta1.LLMProviderSpec) bool {
	return slices.ContainsFunc(now.ExportTo, func(to v1beta1.ExportTarget) bool {
		return to != v1beta1.ExportToOwn && !slices.Contains(old.ExportTo, to) && !slices.Contains(old.ExportTo, v1beta1.ExportToAll)
	})
}

// placedConfig is a config of a provider and where it stands.
type placedConfig struct {
	*v1beta1.OpenAIConfig
	field string
}

// configsOf gives all configs of a provider, the one for all requests first.
func configsOf(p *v1beta1.LLMProvider) []placedConfig {
	configs := &p.Spec.Configs
	all := []placedConfig{{&configs.DefaultConfig.OpenAIConfig, "spec.configs.defaultConfig.openAIConfig"}}
	for _, rule := range slices.Sorted(maps.Keys(configs.RouteSpecificConfigs)) {
		conf := configs.RouteSpecificConfigs[rule]
		all = append(all, placedConfig{&conf.OpenAIConfig, "spec.configs.routeSpecificConfigs[" + rule + "].openAIConfig"})
	}
	return all
}

// keysNamed gives every key that a provider names.
func keysNamed(p *v1beta1.LLMProvider) []namedKey {
	var all []namedKey
	add := func(ref *v1beta1.SecretKeyReference, field string) {
		all = append(all, namedKey{keySource{ref.Name, cmp.Or(ref.Key, v1beta1.DefaultAPIKeyName)}, field})
	}
	for _, conf := range configsOf(p) {
		if conf.APIKeyRef != nil {
			add(conf.APIKeyRef, conf.field+".apiKeyRef")
		}
		for i := range conf.APIKeyRefs {
			add(&conf.APIKeyRefs[i].SecretKeyReference, fmt.Sprintf("%s.apiKeyRefs[%d]", conf.field, i))
		}
	}
	if t := p.Spec.TLS; t != nil && t.ClientCertificateRef != nil {
		all = append(all, namedKey{keySource{secret: t.ClientCertificateRef.Name}, "spec.tls.clientCertificateRef"})
	}
	return all
}
