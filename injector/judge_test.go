package injector_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"

	"remora.dev/remora/injector"
)

func TestOurPartsMustBeAsTheyWereInjected(t *testing.T) {
	s := settings(t)
	f := func(alter func(redirect, sidecar *corev1.Container, pod *corev1.Pod), want ...string) {
		t.Helper()
		pod := mustInject(t, podOf(t, busyPod), s)
		c := pod.Spec.InitContainers
		alter(&c[0], &c[1], pod)
		errs := injector.Judge(pod, labelled, s)
		if len(want) == 0 && len(errs) > 0 {
			t.Errorf("refused: %v", errs.ToAggregate())
		}
		for _, w := range want {
			if !strings.Contains(fmt.Sprint(errs), w) {
				t.Errorf("%v does not say %s", errs, w)
			}
		}
	}
	type c = *corev1.Container
	type p = *corev1.Pod

	// what the API server's own plug-ins do
	f(func(_, _ c, _ p) {})
	f(func(r, s c, _ p) { r.ImagePullPolicy, s.ImagePullPolicy = corev1.PullAlways, corev1.PullAlways })
	f(func(r, s c, _ p) {
		r.Resources.Limits[corev1.ResourceCPU] = resource.MustParse("1")
		s.Resources = corev1.ResourceRequirements{}
	})
	f(func(_, s c, _ p) {
		s.TerminationMessagePolicy, s.ResizePolicy = corev1.TerminationMessageReadFile, []corev1.ContainerResizePolicy{{ResourceName: "cpu"}}
	})
	f(func(_, s c, _ p) { s.LivenessProbe.HTTPGet.Protocol = ptr.To(corev1.HTTPProtocol("HTTP1")) })
	f(func(_, s c, _ p) { s.Env[0].Value = "1000" })
	f(func(_, s c, _ p) { s.Ports, s.Command = []corev1.ContainerPort{}, []string{} })

	// what nobody may
	const first, second = "spec.initContainers[0].", "spec.initContainers[1]."
	f(func(_, s c, _ p) { s.Image = "registry.example/sidecar@sha256:0123" }, second+"image", "registry.example/sidecar@sha256:0123", "remora.dev/sidecar:latest", "PodTemplate remora-system/remora-sidecar")
	f(func(r, _ c, _ p) { r.ImagePullPolicy = corev1.PullNever }, first+"imagePullPolicy", "Never", "IfNotPresent")
	f(func(r, _ c, _ p) { r.Command = []string{"sh"} }, first+"command", "Remedy")
	f(func(_, s c, _ p) { s.Args = append(s.Args, "--keys=other") }, second+"args")
	f(func(_, s c, _ p) { s.Env = append(s.Env, corev1.EnvVar{Name: "SSL_CERT_FILE", Value: "/x"}) }, second+"env")
	f(func(_, s c, _ p) {
		s.Env[0] = corev1.EnvVar{Name: "GOMEMLIMIT", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}}
	}, second+"env")
	f(func(_, s c, _ p) {
		s.EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{}}}
	}, second+"envFrom")
	f(func(_, s c, _ p) { s.VolumeMounts[1].SubPath = "x" }, second+"volumeMounts")
	f(func(r, _ c, _ p) { r.VolumeMounts = nil }, first+"volumeMounts")
	f(func(_, s c, _ p) { s.VolumeDevices = []corev1.VolumeDevice{{Name: "data"}} }, second+"volumeDevices")
	f(func(_, s c, _ p) { s.SecurityContext.RunAsUser = ptr.To[int64](1000) }, second+"securityContext")
	f(func(r, _ c, _ p) {
		r.SecurityContext.Capabilities.Add = append(r.SecurityContext.Capabilities.Add, "SYS_ADMIN")
	}, first+"securityContext")
	f(func(_, s c, _ p) { s.SecurityContext = nil }, second+"securityContext")
	f(func(_, s c, _ p) { s.RestartPolicy = nil }, second+"restartPolicy", "1.29")
	f(func(_, s c, _ p) {
		s.Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 5}}}
	}, second+"lifecycle")
	f(func(_, s c, _ p) { s.StartupProbe = nil }, second+"startupProbe")
	f(func(_, s c, _ p) { s.TerminationMessagePath = "/run/remora/last/good.json" }, second+"terminationMessagePath")
	f(func(_, s c, _ p) {
		s.LivenessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"cat"}}}}
	}, second+"livenessProbe")
	f(func(_, s c, _ p) { s.Ports = []corev1.ContainerPort{{ContainerPort: 1}} }, second+"ports")
	f(func(_, s c, _ p) { s.Stdin, s.WorkingDir = true, "/x" }, second+"stdin", second+"workingDir")

	f(func(_, _ c, p p) { p.Spec.InitContainers = p.Spec.InitContainers[2:] }, "spec.initContainers: Required", "remora-redirect", "remora-sidecar", "remora-webhook")
	f(func(_, _ c, p p) { p.Spec.InitContainers = append(p.Spec.InitContainers, p.Spec.InitContainers[1]) }, "spec.initContainers[3].name: Duplicate")
	f(func(r, s c, _ p) { *r, *s = *s, *r }, "spec.initContainers[0]", "comes before remora-redirect")
	f(func(_, s c, p p) { *s, p.Spec.InitContainers[2] = p.Spec.InitContainers[2], *s }, "spec.initContainers[1]", "prepare comes before remora-sidecar")
	f(func(_, _ c, p p) { p.Labels["remora.dev/injected"] = "false" }, "metadata.labels[remora.dev/injected]")
	f(func(_, _ c, p p) { p.Spec.Volumes = p.Spec.Volumes[:3] }, "spec.volumes: Required", "remora-pod")
	f(func(_, _ c, p p) {
		p.Spec.Volumes[2].VolumeSource = corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/tmp"}}
	}, "spec.volumes[2]", "remora-state is not as it was injected")
	f(func(_, _ c, p p) { p.Spec.Volumes[1].Secret.DefaultMode = ptr.To[int32](0o777) }, "spec.volumes[1]")
	f(func(_, _ c, p p) { p.Annotations["remora.dev/ports"] = "x" }, "metadata.annotations[remora.dev/ports]")
	f(func(_, _ c, p p) { p.Spec.DeprecatedServiceAccount = "remora-sidecar" }, "spec.serviceAccountName")
	f(func(_, _ c, p p) { p.Spec.HostNetwork = true }, "spec.initContainers[1].name", "spec.volumes[1].secret.secretName")
}

// Kubernetes grows new ways to name a Secret. Each that the API has is filled in here, and must be refused.
func TestNoVolumeMayUseOurSecretsInWhateverForm(t *testing.T) {
	s := settings(t)
	sources, tried := reflect.TypeFor[corev1.VolumeSource](), 0
	for i := range sources.NumField() {
		f := sources.Field(i)
		for _, secret := range []string{"remora-sidecar-access", "remora-sidecar-keys"} {
			var source corev1.VolumeSource
			filled := fill(reflect.ValueOf(&source).Elem().Field(i), f.Name, secret)
			if filled == 0 {
				continue
			}
			tried++
			pod := podOf(t, sleepPod)
			pod.Spec.Volumes = []corev1.Volume{{Name: "a", VolumeSource: source}}
			errs := injector.Judge(mustInject(t, pod, s), labelled, s)
			if len(errs) != filled || !strings.Contains(fmt.Sprint(errs), "the Secret "+secret+" is for sidecars alone") {
				t.Errorf("%s names %s %d times, and what is refused is %v", f.Name, secret, filled, errs)
			}
		}
	}
	if tried < 2*11 {
		t.Errorf("%d ways were tried: the types are not walked any more", tried)
	}
}

// fill sets every name of a Secret below v, and tells how many there were. A structure with none is left out.
func fill(v reflect.Value, within, secret string) int {
	switch v.Kind() {
	case reflect.Pointer:
		if strings.Contains(within, "ConfigMap") || strings.Contains(v.Type().String(), "VolumeClaimTemplate") {
			return 0
		}
		n := reflect.New(v.Type().Elem())
		count := fill(n.Elem(), within, secret)
		if count > 0 {
			v.Set(n)
		}
		return count
	case reflect.Slice:
		if v.Type().Elem().Kind() != reflect.Struct {
			return 0
		}
		n := reflect.MakeSlice(v.Type(), 1, 1)
		count := fill(n.Index(0), within, secret)
		if count > 0 {
			v.Set(n)
		}
		return count
	case reflect.Struct:
		count := 0
		for i := range v.NumField() {
			f := v.Type().Field(i)
			named := f.Name == "SecretName" || f.Name == "Name" && (strings.Contains(v.Type().Name(), "Reference") && !strings.Contains(within, "ConfigMap"))
			switch {
			case named && f.Type.Kind() == reflect.String:
				v.Field(i).SetString(secret)
				count++
			case f.IsExported():
				count += fill(v.Field(i), f.Name, secret)
			}
		}
		return count
	default:
		return 0
	}
}
