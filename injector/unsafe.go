package injector

import (
	"fmt"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"remora.dev/remora/apis/v1beta1"
)

// without is the way out for a pod that cannot do without what is refused.
const without = ", or run the pod without a sidecar by the label " + v1beta1.InjectLabel + "=" + v1beta1.InjectDisabled

// elsewhere is the one for what reaches the keys of other pods, too, with a sidecar beside it or not: config/guard/nodes.yaml.
const elsewhere = ", or run the pod in a namespace without sidecars"

// unsafe finds what would let an app reach into the sidecar beside it and read its keys. Not hostIPC, which reaches no memory of the
// sidecar, and no volume that a PersistentVolumeClaim brings: what is behind it is the affair of who may make volumes.
func unsafe(spec *corev1.PodSpec) field.ErrorList {
	u := &findings{}
	at := field.NewPath("spec")
	if spec.ShareProcessNamespace != nil && *spec.ShareProcessNamespace {
		u.refuse(at.Child("shareProcessNamespace"), "it lets the app see the sidecar's process and files, and with them the keys: leave it out"+without)
	}
	if spec.HostPID {
		u.refuse(at.Child("hostPID"), "it lets the app see all processes of the node, and with them the sidecar's keys: leave it out"+elsewhere)
	}
	if c := spec.SecurityContext; c != nil {
		at := at.Child("securityContext")
		u.id(at.Child("runAsUser"), "", c.RunAsUser)
		u.id(at.Child("runAsGroup"), "", c.RunAsGroup)
		u.id(at.Child("fsGroup"), "", c.FSGroup)
		for i := range c.SupplementalGroups {
			u.id(at.Child("supplementalGroups").Index(i), "", &c.SupplementalGroups[i])
		}
	}
	for i, v := range spec.Volumes {
		if v.HostPath != nil {
			u.hostPath(at.Child("volumes").Index(i).Child("hostPath", "path"), v.HostPath.Path)
		}
	}
	eachContainer(spec, u.container)
	return u.errs
}

type findings struct{ errs field.ErrorList }

func (u *findings) refuse(at *field.Path, why string) {
	u.errs = append(u.errs, field.Forbidden(at, why))
}

func (u *findings) id(at *field.Path, of string, id *int64) {
	if id != nil && *id == v1beta1.SidecarUID {
		u.refuse(at, of+fmt.Sprintf("%d is the sidecar's own user and group, whose traffic is not redirected: take another number", v1beta1.SidecarUID))
	}
}

// reaching are the capabilities by which a process reads the memory or files of others, or loads code into the kernel.
var reaching = []corev1.Capability{
	"ALL", "BPF", "CHECKPOINT_RESTORE", "DAC_READ_SEARCH", "PERFMON", "SYS_ADMIN", "SYS_BOOT", "SYS_MODULE", "SYS_PTRACE", "SYS_RAWIO",
}

// sidecarPorts are those that the sidecar listens on.
var sidecarPorts = []int32{14001, 14020, healthPort}

func (u *findings) container(at *field.Path, kind containerKind, c *corev1.Container) {
	if kind == initContainer && isOurs(c.Name) {
		return // altered has compared it
	}
	of := container(c)
	for i, p := range c.Ports {
		if slices.Contains(sidecarPorts, p.ContainerPort) && (p.Protocol == corev1.ProtocolTCP || p.Protocol == "") {
			u.refuse(at.Child("ports").Index(i).Child("containerPort"), of+fmt.Sprintf("the sidecar listens on %d, in the same network: listen on another one", p.ContainerPort))
		}
	}
	s := c.SecurityContext
	if s == nil {
		return
	}
	at = at.Child("securityContext")
	u.id(at.Child("runAsUser"), of, s.RunAsUser)
	u.id(at.Child("runAsGroup"), of, s.RunAsGroup)
	if s.Privileged != nil && *s.Privileged {
		u.refuse(at.Child("privileged"), of+"it makes the container master of the node, and with it of the sidecar's keys: leave it out"+elsewhere)
	}
	if s.ProcMount != nil && *s.ProcMount == corev1.UnmaskedProcMount {
		u.refuse(at.Child("procMount"), of+"it shows the container the parts of /proc that tell of others: leave it out")
	}
	if s.Capabilities != nil {
		for i, capability := range s.Capabilities.Add {
			word := strings.TrimPrefix(strings.ToUpper(string(capability)), "CAP_")
			if slices.Contains(reaching, corev1.Capability(word)) {
				u.refuse(at.Child("capabilities", "add").Index(i), of+string(capability)+" reaches beyond the container, to the sidecar's keys: leave it out"+elsewhere)
			}
		}
	}
}

// nodeFolders are those of a node through which the files, memory or traffic of its containers can be had, or orders be given to
// what runs them.
var nodeFolders = []string{
	"/var/lib/kubelet", "/proc", "/sys", "/dev",
	"/etc/cni", "/etc/kubernetes", "/opt/cni",
	"/run/containerd", "/run/cri-dockerd.sock", "/run/crio", "/run/docker", "/run/docker.sock", "/run/dockershim.sock", "/run/k0s", "/run/k3s", "/run/podman",
	"/var/lib/cni", "/var/lib/containerd", "/var/lib/containers", "/var/lib/crio", "/var/lib/docker", "/var/lib/k0s", "/var/lib/rancher", "/var/snap",
}

// hostPath refuses a folder of the node that is one of nodeFolders, in one, or around one.
func (u *findings) hostPath(at *field.Path, folder string) {
	p := path.Clean("/" + folder)
	if rest, below := strings.CutPrefix(p+"/", "/var/run/"); below { // a link to /run
		p = path.Join("/run", rest)
	}
	if p == "/dev/shm" || strings.HasPrefix(p, "/dev/shm/") {
		return // memory that processes share on purpose: no device
	}
	for _, f := range nodeFolders {
		if within(p, f) || within(f, p) {
			u.refuse(at, "the folder "+folder+" of the node leads to "+f+", by which the app could reach the sidecar's keys: leave the volume out"+elsewhere)
			return
		}
	}
}

func within(inner, outer string) bool {
	return inner == outer || outer == "/" || strings.HasPrefix(inner, outer+"/")
}
