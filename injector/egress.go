package injector

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"remora.dev/remora/sidecar/launch"
)

// egressOf reads how sidecars reach providers outside of the network. Nothing else of a sidecar's environment is a matter
// of taste: SSL_CERT_FILE, for one, would say whom it trusts. Values are shown in no error: one may hold a password.
func egressOf(at *field.Path, env []corev1.EnvVar) ([]corev1.EnvVar, field.ErrorList) {
	var errs field.ErrorList
	var seen []string
	for i, e := range env {
		value := at.Index(i).Child("value")
		switch {
		case e.Name != launch.EgressVariable && e.Name != launch.ExceptVariable:
			errs = append(errs, field.NotSupported(at.Index(i).Child("name"), e.Name, []string{launch.EgressVariable, launch.ExceptVariable}))
		case slices.Contains(seen, e.Name):
			errs = append(errs, field.Duplicate(at.Index(i).Child("name"), e.Name))
		case e.ValueFrom != nil:
			errs = append(errs, field.Forbidden(at.Index(i).Child("valueFrom"), "write the value: what this names would be looked for in the namespace of each pod, and belong to its users"))
		case strings.Contains(e.Value, "$("):
			errs = append(errs, field.Forbidden(value, "Kubernetes would replace $(…) by another variable: in a password, write %24 for $"))
		case e.Name == launch.EgressVariable:
			if _, err := launch.ParseEgress(e.Value); err != nil {
				errs = append(errs, field.Forbidden(value, err.Error()))
			}
		}
		seen = append(seen, e.Name)
	}
	return slices.Clone(env), errs
}
