package metrics

import "strings"

// The kinds of metrics, as the text form calls them.
const (
	kindCounter   = "counter"
	kindGauge     = "gauge"
	kindHistogram = "histogram"
	kindSummary   = "summary"
)

// families are what a person reads of each metric of Remora's own, and of OpenTelemetry's and ASM's that it writes. docs/metrics.md has more.
var families = [...]struct{ name, help string }{
	{"gen_ai_client_token_usage", "Tokens of a request, as OpenTelemetry's gen_ai.client.token.usage."},
	{"gen_ai_client_operation_duration_seconds", "Time from a request's head to the end of its answer."},
	{"gen_ai_client_operation_time_to_first_chunk_seconds", "Time from a request's head to the first content of a streamed answer."},
	{"gen_ai_client_operation_time_per_output_chunk_seconds", "Time between the pieces of a streamed answer after the first, evenly over an answer."},
	{"asm_llm_proxy_prompt_tokens", "Input tokens that providers reported, by ASM's name."},
	{"asm_llm_proxy_completion_tokens", "Output tokens that providers reported, by ASM's name."},
	{"remora_requests_total", "Requests that a provider answered, whatever the status."},
	{"remora_tokens_total", "Tokens by type, exact as providers reported them, or estimated."},
	{"remora_token_parts_total", "Reported tokens that remora_tokens_total has as input (cached) or output (reasoning) already."},
	{"remora_model_token_parts_total", "As remora_token_parts_total, for models that the app chose too."},
	{"remora_answers_without_usage_total", "Answers whose tokens are estimated, as they were cut or the provider reported none."},
	{"remora_cost_total", "What tokens cost by the installation's price list."},
	{"remora_failures_total", "Requests that Remora refused, or that failed, by code."},
	{"remora_retries_total", "Attempts after a failed one, by the failed one's provider and code."},
	{"remora_retries_withheld_total", "Attempts that were not made as the retry budget was spent."},
	{"remora_fallbacks_total", "Attempts at another provider than the one before, by the provider that answered in the end."},
	{"remora_ejections_total", "How often a provider was left alone for a while."},
	{"remora_ejected_backends", "Providers that are left alone now."},
	{"remora_mirrors_dropped_total", "Calls that were not copied for a mirror."},
	{"remora_aborted_streams_total", "Streamed answers that somebody ended before they were complete."},
	{"remora_added_seconds", "What Remora itself adds to a request, without any waiting for others."},
	{"remora_requests_in_flight", "Requests for providers that are not over."},
	{"remora_requests_waiting", "Requests that wait for a free connection or for memory."},
	{"remora_upstream_connections", "Connections to providers."},
	{"remora_upstream_idle_connections", "Connections to providers that wait for a request."},
	{"remora_buffered_bytes", "Memory that bodies take now."},
	{"remora_spliced_connections_total", "Connections that were passed on as they are."},
	{"remora_spliced_bytes_total", "Bytes on connections that were passed on as they are."},
	{"remora_gateway_connections", "Connections of callers at the gateway."},
	{"remora_gateway_ports", "Ports that the gateway listens on."},
	{"remora_gateway_ports_missing", "Ports of Gateways that cannot be listened on."},
	{"remora_servers", "Servers behind a name that are ready now."},
	{"remora_ejected_servers", "Servers that are left alone now."},
	{"remora_server_calls", "Calls that are under way at servers."},
	{"remora_server_ejections_total", "How often a server was left alone for a while."},
	{"remora_key_requests_total", "Requests that a key was sent with, by status."},
	{"remora_key_rests_total", "How often a key was left alone for a while."},
	{"remora_resting_keys", "Keys that are left alone now."},
	{"remora_configuration_info", "The generation of the configuration that runs."},
	{"remora_configuration_age_seconds", "Time since the configuration that runs was put in place."},
	{"remora_configuration_unread", "Parts of the configuration that could not be read."},
	{"remora_configuration_problems", "Objects' faults in the configuration that runs."},
	{"remora_configuration_ready", "1 once a configuration has been read, 0 before."},
	{"remora_api_server_unreachable_seconds", "Since when the API server is away, 0 where it is not."},
	{"remora_token_issued_timestamp_seconds", "When the sidecar's token was made, 0 where there is none."},
	{"remora_token_expiry_timestamp_seconds", "When the sidecar's token runs out, 0 where there is none."},
	{"remora_workload_info", "Whose calls these are."},
	{"remora_log_lines_dropped_total", "Lines that were not written, as nobody read them fast enough."},
	{"remora_spans_sent_total", "Spans that a collector took."},
	{"remora_spans_dropped_total", "Spans that no collector got, by reason."},
	{"remora_label_sets", "Label sets of finished requests that are shown; docs/metrics.md says how many there can be."},
}

// odd are those whose names do not say what they are.
var odd = map[string]string{
	"gen_ai_client_token_usage":                             kindHistogram,
	"gen_ai_client_operation_duration_seconds":              kindHistogram,
	"gen_ai_client_operation_time_to_first_chunk_seconds":   kindHistogram,
	"gen_ai_client_operation_time_per_output_chunk_seconds": kindHistogram,
	"remora_added_seconds":                                  kindHistogram,
	"asm_llm_proxy_prompt_tokens":                           kindCounter,
	"asm_llm_proxy_completion_tokens":                       kindCounter,
	"go_sched_latencies_seconds":                            kindHistogram,
	"go_gc_pauses_seconds":                                  kindHistogram,
	"go_gc_duration_seconds":                                kindSummary,
}

// describe gives the kind of a metric, and a sentence on it.
func describe(name string) (kind, help string) {
	if kind = odd[name]; kind == "" {
		kind = kindGauge
		if strings.HasSuffix(name, "_total") {
			kind = kindCounter
		}
	}
	switch {
	case strings.HasPrefix(name, "go_"):
		return kind, "Of Go's runtime."
	case strings.HasPrefix(name, "process_"):
		return kind, "Of the process, as the kernel counts it."
	}
	for i := range families {
		if families[i].name == name {
			return kind, families[i].help
		}
	}
	return kind, name
}

// familyOf gives the metric that a line belongs to.
func familyOf(line string) string {
	for _, suffix := range [...]string{"_bucket", "_sum", "_count"} {
		if name, found := strings.CutSuffix(line, suffix); found && (odd[name] == kindHistogram || odd[name] == kindSummary) {
			return name
		}
	}
	return line
}
