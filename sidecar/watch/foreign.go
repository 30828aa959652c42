package watch

import (
	"maps"
	"slices"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/routing"
)

// withheld stands for a key that is written into an LLMProvider of another namespace than the gateway's. It is no key.
const withheld = "withheld-from-gateways"

// withhold takes the keys out of what is of another namespace. What cannot be read may have some anywhere in it; nothing of it is kept but hosts.
func (a *API) withhold(d *document) {
	if d.provider != nil && d.ref.Namespace != a.Namespace {
		d.provider = keyless(d.provider)
	}
}

// keyless gives a provider without the keys that are written into it. A gateway sends those of its own namespace alone, and has no
// use for others in its memory and on its disk; only that there is one decides something.
func keyless(p *v1beta1.LLMProvider) *v1beta1.LLMProvider {
	own := *p
	hide := func(c *v1beta1.OpenAIConfig) {
		if c.APIKey != "" {
			c.APIKey = withheld
		}
	}
	hide(&own.Spec.Configs.DefaultConfig.OpenAIConfig)
	own.Spec.Configs.RouteSpecificConfigs = maps.Clone(own.Spec.Configs.RouteSpecificConfigs)
	for rule, c := range own.Spec.Configs.RouteSpecificConfigs {
		hide(&c.OpenAIConfig)
		own.Spec.Configs.RouteSpecificConfigs[rule] = c
	}
	return &own
}

// concerning leaves out what only looks wrong from a gateway: of other namespaces, it sees no Secrets.
func (a *API) concerning(findings []finding) []finding {
	if !a.Gateway {
		return findings
	}
	return slices.DeleteFunc(findings, func(f finding) bool {
		return f.Object.Namespace != a.Namespace && (f.Code == routing.SecretNotFound || f.Code == routing.SecretInvalid)
	})
}
