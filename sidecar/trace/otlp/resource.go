package otlp

import (
	"cmp"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"remora.dev/remora/sidecar/launch"
)

const (
	// schema is the version of the semantic conventions that the names of attributes are from.
	schema = "https://opentelemetry.io/schemas/1.41.0"
	scope  = "remora.dev/remora/sidecar"

	unknownService = "unknown_service:remora-sidecar"
)

// workloadKeys are the attributes that name what made a pod, by its kind.
var workloadKeys = map[string]string{
	"Deployment": "k8s.deployment.name", "StatefulSet": "k8s.statefulset.name", "DaemonSet": "k8s.daemonset.name",
	"ReplicaSet": "k8s.replicaset.name", "Job": "k8s.job.name", "CronJob": "k8s.cronjob.name",
}

// envelope is what is around the spans of every request to the collector: a request is head, and the spans after it.
type envelope struct {
	resource []byte // the fields of ResourceSpans but the scope
	scope    []byte // the fields of ScopeSpans but the spans
}

// newEnvelope says whose spans they are.
func newEnvelope(of launch.Identity, version string) *envelope {
	kind, workload, known := strings.Cut(of.Workload, "/")
	if !known {
		kind, workload = "", of.Workload
	}
	a := attributes{field: resourceAttributes}
	a.text("service.name", cmp.Or(workload, of.Pod, unknownService))
	a.text("service.namespace", of.Namespace)
	a.text("k8s.namespace.name", of.Namespace)
	a.text("k8s.pod.name", of.Pod)
	a.text("k8s.node.name", of.Node)
	if key := workloadKeys[kind]; key != "" {
		a.text(key, workload)
	}
	a.text("remora.service_account", of.ServiceAccount)
	a.text("telemetry.distro.name", "remora")
	a.text("telemetry.distro.version", version)

	e := &envelope{resource: appendBytes(nil, resourceSpansResource, a.dst)}
	e.resource = appendString(e.resource, resourceSpansSchemaURL, schema)
	e.scope = appendBytes(nil, scopeSpansScope, appendString(appendString(nil, scopeName, scope), scopeVersion, text(version)))
	e.scope = appendString(e.scope, scopeSpansSchemaURL, schema)
	return e
}

// head gives what precedes so many bytes of spans, each of them a field of ScopeSpans.
func (e *envelope) head(spans int) []byte {
	inner := len(e.scope) + spans
	outer := len(e.resource) + protowire.SizeTag(resourceSpansScope) + protowire.SizeVarint(uint64(inner)) + inner
	dst := protowire.AppendTag(nil, requestResourceSpans, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(outer))
	dst = append(dst, e.resource...)
	dst = protowire.AppendTag(dst, resourceSpansScope, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(inner))
	return append(dst, e.scope...)
}
