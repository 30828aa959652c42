package metrics

import "strings"

// systems are OpenTelemetry's names (gen_ai.provider.name) of those whose hosts are known. More than one may end in the same: the first that
// fits counts.
var systems = [...]struct{ host, name string }{
	{"api.openai.com", "openai"},
	{"openai.azure.com", "azure.ai.openai"},
	{"cognitiveservices.azure.com", "azure.ai.openai"},
	{"models.ai.azure.com", "azure.ai.inference"},
	{"services.ai.azure.com", "azure.ai.inference"},
	{"api.anthropic.com", "anthropic"},
	{"generativelanguage.googleapis.com", "gcp.gemini"},
	{"aiplatform.googleapis.com", "gcp.vertex_ai"},
	{"api.deepseek.com", "deepseek"},
	{"api.mistral.ai", "mistral_ai"},
	{"api.groq.com", "groq"},
	{"api.x.ai", "x_ai"},
	{"api.perplexity.ai", "perplexity"},
	{"api.cohere.com", "cohere"},
	{"api.cohere.ai", "cohere"},
	{"api.moonshot.ai", "moonshot_ai"},
	{"api.moonshot.cn", "moonshot_ai"},
	{"ml.cloud.ibm.com", "ibm.watsonx.ai"},
}

// SystemOf gives OpenTelemetry's name for who is behind an endpoint, HOST:PORT or HOST; empty: it has none.
func SystemOf(endpoint string) string {
	host := endpoint
	if i := strings.LastIndexByte(host, ':'); i >= 0 {
		host = host[:i]
	}
	for i := range systems {
		if isWithin(host, systems[i].host) {
			return systems[i].name
		}
	}
	// bedrock-runtime.REGION.amazonaws.com and its kin
	if isWithin(host, "amazonaws.com") && strings.HasPrefix(host, "bedrock") {
		return "aws.bedrock"
	}
	// REGION-aiplatform.googleapis.com
	if strings.HasSuffix(host, "-aiplatform.googleapis.com") {
		return "gcp.vertex_ai"
	}
	return ""
}

func isWithin(host, domain string) bool {
	rest, found := strings.CutSuffix(host, domain)
	return found && (rest == "" || rest[len(rest)-1] == '.')
}
