package injector

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/launch"
)

// Where things are in the injected containers.
const (
	accountPath = "/var/run/secrets/kubernetes.io/serviceaccount" // where clients of Kubernetes look, and Kubernetes mounts
	statePath   = "/run/remora"
	podPath     = "/etc/remora"

	// lastGood is in a folder that the sidecar makes: that of the volume itself belongs to root.
	lastGood = statePath + "/last/good.json"

	healthPort = 14021
)

// What follows is written out in full, defaults of the API server included: a second injection then finds what it would write.

// redirectContainer writes the rules. It is root in the pod's network namespace, and nowhere else: it sees no secret, and mounts the
// pod's labels at the service account path only so that Kubernetes does not mount the app's token there.
func redirectContainer(s Settings, w wishes, b budget, before corev1.ResourceRequirements) corev1.Container {
	return corev1.Container{
		Name:            v1beta1.RedirectContainer,
		Image:           s.Redirect.Image,
		ImagePullPolicy: s.Redirect.PullPolicy,
		Args:            launch.Redirect{Ports: w.ports}.Strings(),
		Resources:       keep(b.fit(s.Redirect.Resources), before),
		VolumeMounts:    []corev1.VolumeMount{{Name: v1beta1.PodVolume, MountPath: accountPath, ReadOnly: true}},
		SecurityContext: &corev1.SecurityContext{
			RunAsUser:                ptr.To[int64](0),
			RunAsGroup:               ptr.To[int64](0),
			RunAsNonRoot:             ptr.To(false), // the pod may say true for everybody
			Privileged:               ptr.To(false),
			AllowPrivilegeEscalation: ptr.To(false),
			ReadOnlyRootFilesystem:   ptr.To(true),
			Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}, Add: s.RedirectCapabilities},
			SeccompProfile:           &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
		TerminationMessagePath:   corev1.TerminationMessagePathDefault,
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError, // kubectl describe shows why it failed
	}
}

// sidecarContainer is the proxy. It fulfils the Pod Security level restricted, whatever the pod's own security context says.
func sidecarContainer(pod *corev1.Pod, s Settings, w wishes, b budget, before corev1.ResourceRequirements) corev1.Container {
	wanted := w.apply(s.Sidecar.Resources, b)
	fitted := b.fit(wanted)
	return corev1.Container{
		Name:            v1beta1.SidecarContainer,
		Image:           s.Sidecar.Image,
		ImagePullPolicy: s.Sidecar.PullPolicy,
		Args:            launch.Args{Command: launch.Proxy, LastGood: lastGood, Mode: launch.ModeRedirect, LabelsFile: podPath + "/" + v1beta1.PodLabelsFile, LogLevel: w.logLevel}.Strings(),
		Env:             slices.Concat(memoryLimit(fitted, wanted), s.Egress, identity(pod)),
		Resources:       keep(fitted, before),
		RestartPolicy:   ptr.To(corev1.ContainerRestartPolicyAlways),
		VolumeMounts: []corev1.VolumeMount{
			{Name: v1beta1.AccessVolume, MountPath: accountPath, ReadOnly: true},
			{Name: v1beta1.StateVolume, MountPath: statePath},
			{Name: v1beta1.PodVolume, MountPath: podPath, ReadOnly: true},
		},
		// The app and the user's init containers start when a configuration has been read, so that their first call succeeds. A pod
		// that starts while the API server is away waits, rather than to be started anew again and again.
		StartupProbe: probe("/startupz", 1, 600),
		// /readyz stays 200 from the first configuration on, until shutdown: while the API server is away, it does not take the pod out of its Services.
		ReadinessProbe: probe("/readyz", 10, 3),
		LivenessProbe:  probe("/livez", 10, 6),
		SecurityContext: &corev1.SecurityContext{
			RunAsUser:                ptr.To[int64](v1beta1.SidecarUID),
			RunAsGroup:               ptr.To[int64](v1beta1.SidecarUID),
			RunAsNonRoot:             ptr.To(true),
			Privileged:               ptr.To(false),
			AllowPrivilegeEscalation: ptr.To(false),
			ReadOnlyRootFilesystem:   ptr.To(true),
			Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			SeccompProfile:           &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
		TerminationMessagePath:   corev1.TerminationMessagePathDefault,
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
	}
}

func probe(path string, period, failures int32) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler:   corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: intstr.FromInt32(healthPort), Scheme: corev1.URISchemeHTTP}},
		TimeoutSeconds: 5, PeriodSeconds: period, SuccessThreshold: 1, FailureThreshold: failures,
	}
}

// volumes are the injected ones. Only our containers mount them.
func volumes() []corev1.Volume {
	return []corev1.Volume{
		{Name: v1beta1.AccessVolume, VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{
			SecretName: v1beta1.AccessSecret, DefaultMode: ptr.To[int32](0o444),
		}}},
		{Name: v1beta1.StateVolume, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{
			Medium: corev1.StorageMediumMemory, SizeLimit: ptr.To(resource.MustParse("16Mi")),
		}}},
		{Name: v1beta1.PodVolume, VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{
			Items: []corev1.DownwardAPIVolumeFile{{
				Path: v1beta1.PodLabelsFile, FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.labels"},
			}},
			DefaultMode: ptr.To[int32](0o444),
		}}},
	}
}
