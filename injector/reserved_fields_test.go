package injector_test

import (
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// All fields of a pod by which it can name a Secret, a volume or a container. A newer Kubernetes may have more: config/guard/pods.yaml and
// injector/reserved.go have to know them.
func TestTheGuardsKnowEveryFieldThatCouldNameWhatIsOurs(t *testing.T) {
	want := strings.Fields(`
		container.env.valueFrom.fileKeyRef.volumeName
		container.env.valueFrom.resourceFieldRef.containerName
		container.env.valueFrom.secretKeyRef.name
		container.envFrom.secretRef.name
		container.volumeDevices.name
		container.volumeMounts.name
		ephemeralContainers.targetContainerName
		imagePullSecrets.name
		volumes.azureFile.secretName
		volumes.cephfs.secretRef.name
		volumes.cinder.secretRef.name
		volumes.csi.nodePublishSecretRef.name
		volumes.downwardAPI.items.resourceFieldRef.containerName
		volumes.flexVolume.secretRef.name
		volumes.iscsi.secretRef.name
		volumes.projected.sources.downwardAPI.items.resourceFieldRef.containerName
		volumes.projected.sources.secret.name
		volumes.rbd.secretRef.name
		volumes.scaleIO.secretRef.name
		volumes.secret.secretName
		volumes.storageos.secretRef.name`)
	var got []string
	eachField(reflect.TypeFor[corev1.PodSpec](), "", func(path string) {
		for _, list := range []string{"initContainers.", "containers.", "ephemeralContainers."} {
			if rest, found := strings.CutPrefix(path, list); found && path != "ephemeralContainers.targetContainerName" {
				path = "container." + rest
			}
		}
		if naming.MatchString(path) && !namesOthers.MatchString(path) {
			got = append(got, path)
		}
	})
	slices.Sort(got)
	if got = slices.Compact(got); !slices.Equal(got, want) {
		t.Errorf("they are\n%s\nthe guards were written for\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

var (
	naming = regexp.MustCompile(`(?i)secret[^.]*(\.name)?$|volumeName$|containerName$|volume(Mounts|Devices)\.name$`)
	// What names something else: volumes by their names in a storage system, claims, a file of the node.
	namesOthers = regexp.MustCompile(`(scaleIO|storageos)\.volumeName$|volumeClaimTemplate\.|secretFile$`)
)

// eachField calls do with the path of every field below a type that is no struct itself.
func eachField(of reflect.Type, path string, do func(path string)) {
	for of.Kind() == reflect.Pointer || of.Kind() == reflect.Slice {
		of = of.Elem()
	}
	if of.Kind() != reflect.Struct || of.NumField() == 0 || !strings.HasPrefix(of.PkgPath(), "k8s.io/api/") {
		do(path)
		return
	}
	for i := range of.NumField() {
		f := of.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "": // inline
			eachField(f.Type, path, do)
		case path == "":
			eachField(f.Type, name, do)
		default:
			eachField(f.Type, path+"."+name, do)
		}
	}
}
