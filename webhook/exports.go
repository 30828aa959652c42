package main

import (
	"fmt"
	"slices"
	"strings"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/routing"
)

// exportTargets gives the other namespaces that an object may be used in: their names, or "*" for all of them.
func exportTargets(o *object) []string {
	if o == nil || !o.isProvider() || o.Namespace != v1beta1.InstallationNamespace {
		return nil
	}
	var targets []string
	for _, to := range o.content.Providers[0].Spec.ExportTo {
		switch to {
		case v1beta1.ExportToAll:
			return []string{v1beta1.ExportToAll}
		case v1beta1.ExportToOwn, v1beta1.InstallationNamespace:
		default:
			targets = append(targets, string(to))
		}
	}
	return targets
}

// exportedTo gives a provider as a namespace has it that it is exported to: its host may mean another one there. It is nil where the
// namespace has it not.
func exportedTo(namespace string, o *object) *object {
	targets := exportTargets(o)
	if namespace == v1beta1.InstallationNamespace || !exportsTo(targets, namespace) {
		return nil
	}
	there := *o
	there.to = namespace
	there.host = hostKey(o.content.Providers[0].Spec.Host, namespace)
	there.anything = there.host == ""
	return &there
}

// lossOf warns of a change that takes an exported provider from namespaces whose routes use it. users gives the namespaces that name a
// host and have no provider of their own for it.
func lossOf(c *change, users func(host string) ([]string, error)) (string, error) {
	if len(exportTargets(c.before)) == 0 {
		return "", nil
	}
	host := c.before.content.Providers[0].Spec.Host
	all, err := users(hostKey(host, ""))
	if err != nil {
		return "", err
	}
	all = slices.DeleteFunc(all, func(namespace string) bool {
		before, after := exportedTo(namespace, c.before), exportedTo(namespace, c.after)
		return before == nil || after != nil && after.host == before.host
	})
	if len(all) == 0 {
		return "", nil
	}
	slices.Sort(all)
	which := strings.Join(all[:min(len(all), maxAlike)], ", ")
	if more := len(all) - maxAlike; more > 0 {
		which += fmt.Sprintf(" and %d more", more)
	}
	return fmt.Sprintf("LLMRoutes of other namespaces (%d) use this provider for %s, and have none for it after this: %s; apps that call it without a route are not counted", len(all), host, which), nil
}

// unrevealing gives a configuration to make a plan of in which exported providers say no more of themselves than their hosts and models,
// whether they have a key, and whether there is TLS. In all else they are like the provider that is changed, so that no difference is told.
func unrevealing(in routing.Objects, c *change) routing.Objects {
	var like v1beta1.LLMProviderSpec
	for _, o := range []*object{c.before, c.after} {
		if o != nil && o.isProvider() {
			like = o.content.Providers[0].Spec
		}
	}
	in.Exported = slices.Clone(in.Exported)
	for i := range in.Exported {
		spec := &in.Exported[i].Provider.Spec
		little := like
		little.Host, little.WorkloadSelector, little.TLS = spec.Host, spec.WorkloadSelector, withKeys(like.TLS)
		if isPlain(spec) != isPlain(&like) {
			port := portOf(&like)
			little.Port, little.TLS = &port, nil
			if isPlain(spec) {
				little.TLS = withKeys(&v1beta1.ProviderTLS{Mode: v1beta1.TLSDisable})
			}
		}
		little.Configs = v1beta1.ProviderConfigs{DefaultConfig: unrevealingConfig(&spec.Configs.DefaultConfig), RouteSpecificConfigs: map[string]v1beta1.ProviderConfig{}}
		for rule, conf := range spec.Configs.RouteSpecificConfigs {
			little.Configs.RouteSpecificConfigs[rule] = unrevealingConfig(&conf)
		}
		*spec = little
	}
	return in
}

// withKeys gives the same security, but for keys too.
func withKeys(t *v1beta1.ProviderTLS) *v1beta1.ProviderTLS {
	if t == nil {
		return nil
	}
	u := *t
	u.AllowInsecureKey = true
	return &u
}

func unrevealingConfig(from *v1beta1.ProviderConfig) v1beta1.ProviderConfig {
	conf := from.OpenAIConfig
	if conf.APIKey != "" || conf.APIKeyRef != nil || conf.APIKeyRefs != nil {
		conf.APIKey, conf.APIKeyRef, conf.APIKeyRefs = "exported", nil, nil
	}
	return v1beta1.ProviderConfig{OpenAIConfig: conf}
}
