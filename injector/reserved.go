package injector

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"remora.dev/remora/apis/v1beta1"
)

func isOurSecret(name string) bool {
	return name == v1beta1.AccessSecret || name == v1beta1.KeysSecret
}

// reserved finds what uses a name, volume, Secret or service account that is for sidecars alone.
func reserved(spec *corev1.PodSpec, v Verdict) field.ErrorList {
	r := &reservations{at: field.NewPath("spec"), injected: v == VerdictInject}
	if spec.ServiceAccountName == v1beta1.SidecarName || spec.DeprecatedServiceAccount == v1beta1.SidecarName {
		r.refuse(r.at.Child("serviceAccountName"), "the service account "+v1beta1.SidecarName+" may read the keys, and is for sidecars alone: name another one")
	}
	for i, secret := range spec.ImagePullSecrets {
		r.secret(r.at.Child("imagePullSecrets").Index(i).Child("name"), secret.Name)
	}
	for i := range spec.Volumes {
		r.volume(r.at.Child("volumes").Index(i), &spec.Volumes[i])
	}
	eachContainer(spec, r.container)
	for i, c := range spec.EphemeralContainers {
		if isOurs(c.TargetContainerName) {
			r.refuse(r.at.Child("ephemeralContainers").Index(i).Child("targetContainerName"), "a container that targets "+c.TargetContainerName+" could read the keys from its memory: target another one")
		}
	}
	return r.errs
}

type reservations struct {
	at       *field.Path
	injected bool
	of       string // whose fields are looked at
	errs     field.ErrorList
}

func (r *reservations) refuse(at *field.Path, why string) {
	r.errs = append(r.errs, field.Forbidden(at, r.of+why))
}

// container names a container before a sentence about it: the author of the pod does not know its number after the injection.
func container(c *corev1.Container) string { return "container " + c.Name + ": " }

func (r *reservations) secret(at *field.Path, name string) {
	if isOurSecret(name) {
		r.refuse(at, "the Secret "+name+" is for sidecars alone: refer to another one")
	}
}

func (r *reservations) secretRef(at *field.Path, ref *corev1.LocalObjectReference) {
	if ref != nil {
		r.secret(at.Child("secretRef", "name"), ref.Name)
	}
}

func (r *reservations) volume(at *field.Path, v *corev1.Volume) {
	if isOurVolume(v.Name) {
		if r.injected {
			return // altered has compared it
		}
		r.refuse(at.Child("name"), "the name "+v.Name+" is for sidecars alone, and this pod is to have none: remove it, or name it otherwise")
	}
	if s := v.Secret; s != nil {
		r.secret(at.Child("secret", "secretName"), s.SecretName)
	}
	if s := v.Projected; s != nil {
		for i, source := range s.Sources {
			if source.Secret != nil {
				r.secret(at.Child("projected", "sources").Index(i).Child("secret", "name"), source.Secret.Name)
			}
		}
	}
	if s := v.CSI; s != nil && s.NodePublishSecretRef != nil {
		r.secret(at.Child("csi", "nodePublishSecretRef", "name"), s.NodePublishSecretRef.Name)
	}
	if s := v.AzureFile; s != nil {
		r.secret(at.Child("azureFile", "secretName"), s.SecretName)
	}
	if s := v.ISCSI; s != nil {
		r.secretRef(at.Child("iscsi"), s.SecretRef)
	}
	if s := v.RBD; s != nil {
		r.secretRef(at.Child("rbd"), s.SecretRef)
	}
	if s := v.Cinder; s != nil {
		r.secretRef(at.Child("cinder"), s.SecretRef)
	}
	if s := v.CephFS; s != nil {
		r.secretRef(at.Child("cephfs"), s.SecretRef)
	}
	if s := v.FlexVolume; s != nil {
		r.secretRef(at.Child("flexVolume"), s.SecretRef)
	}
	if s := v.ScaleIO; s != nil {
		r.secretRef(at.Child("scaleIO"), s.SecretRef)
	}
	if s := v.StorageOS; s != nil {
		r.secretRef(at.Child("storageos"), s.SecretRef)
	}
}

func (r *reservations) container(at *field.Path, kind containerKind, c *corev1.Container) {
	if isOurs(c.Name) {
		if r.injected && kind == initContainer {
			return // altered has compared it
		}
		r.refuse(at.Child("name"), "the name "+c.Name+" is for what Remora injects: name it otherwise, or, if this was copied from an injected pod, remove it")
	}
	r.of = container(c)
	defer func() { r.of = "" }()
	for i, e := range c.EnvFrom {
		if e.SecretRef != nil {
			r.secret(at.Child("envFrom").Index(i).Child("secretRef", "name"), e.SecretRef.Name)
		}
	}
	for i, e := range c.Env {
		if e.ValueFrom == nil {
			continue
		}
		from := at.Child("env").Index(i).Child("valueFrom")
		if ref := e.ValueFrom.SecretKeyRef; ref != nil {
			r.secret(from.Child("secretKeyRef", "name"), ref.Name)
		}
		if ref := e.ValueFrom.FileKeyRef; ref != nil {
			r.use(from.Child("fileKeyRef", "volumeName"), ref.VolumeName)
		}
	}
	for i, m := range c.VolumeMounts {
		r.use(at.Child("volumeMounts").Index(i).Child("name"), m.Name)
	}
	for i, d := range c.VolumeDevices {
		r.use(at.Child("volumeDevices").Index(i).Child("name"), d.Name)
	}
}

func (r *reservations) use(at *field.Path, volume string) {
	if isOurVolume(volume) {
		r.refuse(at, "the volume "+volume+" is for the sidecar alone: use another one. A webhook that mounts all volumes everywhere has to leave out those whose names begin with remora-")
	}
}

// containerKind is the list that a container is in.
type containerKind string

const (
	initContainer      containerKind = "initContainers"
	appContainer       containerKind = "containers"
	ephemeralContainer containerKind = "ephemeralContainers"
)

// eachContainer calls do for all containers of all kinds.
func eachContainer(spec *corev1.PodSpec, do func(at *field.Path, kind containerKind, c *corev1.Container)) {
	at := func(kind containerKind, i int) *field.Path { return field.NewPath("spec", string(kind)).Index(i) }
	for i := range spec.InitContainers {
		do(at(initContainer, i), initContainer, &spec.InitContainers[i])
	}
	for i := range spec.Containers {
		do(at(appContainer, i), appContainer, &spec.Containers[i])
	}
	for i := range spec.EphemeralContainers {
		c := corev1.Container(spec.EphemeralContainers[i].EphemeralContainerCommon)
		do(at(ephemeralContainer, i), ephemeralContainer, &c)
	}
}
