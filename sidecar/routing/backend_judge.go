package routing

import (
	"slices"

	"k8s.io/apimachinery/pkg/util/validation"

	"remora.dev/remora/apis/v1beta1"
)

// judgeBackendRef finds what is wrong with a reference by itself.
func judgeBackendRef(f *findings, at string, ref *v1beta1.BackendObjectReference) {
	d := destinationOf(ref, f.object.Namespace)
	switch {
	case d.kind != KindService && d.kind != KindInferencePool:
		f.invalid(NotSupported, at+".kind", "%s is not a kind that can be called: use %s or %s", quoted(ref.Kind), KindService, KindInferencePool)
	case d.kind == KindService && ref.Group != "":
		f.invalid(NotSupported, at+".group", "%s is not the group of Services: leave it out", quoted(ref.Group))
	case d.kind == KindInferencePool && ref.Group != PoolGroup:
		f.invalid(NotSupported, at+".group", "%s is not the group of InferencePools: use %s", quoted(ref.Group), PoolGroup)
	}
	if ref.Name == "" {
		f.invalid(InvalidValue, at+".name", "is required: name a Service, or an InferencePool")
	} else if d.kind == KindService && len(validation.IsDNS1123Label(ref.Name)) > 0 || len(validation.IsDNS1123Subdomain(ref.Name)) > 0 {
		f.invalid(InvalidValue, at+".name", "%s cannot be the name of a %s: write only its name, in lower-case letters, digits and hyphens", quoted(ref.Name), d.kind)
	}
	if ref.Namespace != "" && len(validation.IsDNS1123Label(ref.Namespace)) > 0 {
		f.invalid(InvalidValue, at+".namespace", "%s is not the name of a namespace: write one, or leave it out", quoted(ref.Namespace))
	}
	judgePort(f, at+".port", ref.Port)
}

// judgeBackendReference looks for what a route names in the cluster.
func (c *compiler) judgeBackendReference(o *object, field string, ref *v1beta1.BackendObjectReference) {
	if c.in.Services == nil || slices.ContainsFunc(o.list, func(p Problem) bool { return p.Severity == Invalid && leadsTo(field, p.Field) }) {
		return
	}
	from, d := o.object.Namespace, destinationOf(ref, o.object.Namespace)
	if d.namespace != from && !slices.ContainsFunc(o.route.Spec.Gateways, func(g string) bool { return g != v1beta1.GatewayMesh }) {
		o.add(Unresolved, ServiceNotExported, field+".namespace", "%s is of another namespace, which sidecars do not reach, so its share of the calls fails: use one of namespace %s, or route at a gateway", d.ref(), from)
		return
	}
	if _, r := c.backend(from, d, ""); r != nil {
		o.add(Unresolved, r.Code, field, "%s; until then its share of the calls fails", r.Message)
	}
}
