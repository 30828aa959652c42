// Package istio has what Remora honours of Istio's networking API, group networking.istio.io in the versions v1alpha3, v1beta1 and
// v1, which do not differ in it. A field that these types do not have is not honoured, and is named in a warning. The sidecar links
// these types and not Istio's own, which bring protocol buffers along. Source: the API reference of Istio 1.31 (istio.io/api).
package istio
