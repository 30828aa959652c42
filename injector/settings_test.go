package injector_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"remora.dev/remora/injector"
)

func TestTheSettingsOfTheInstallationAreUsable(t *testing.T) {
	s, errs := injector.ParseSettings(templateOf(t, read(t, "../config/webhook/sidecar.yaml")))
	if len(errs) > 0 {
		t.Fatal(errs.ToAggregate())
	}
	pod := mustInject(t, podOf(t, sleepPod), s)
	if errs := injector.Judge(pod, labelled, s); len(errs) > 0 {
		t.Error(errs.ToAggregate())
	}
}

func TestSettingsAreWhatThePodTemplateSays(t *testing.T) {
	got, errs := injector.ParseSettings(templateOf(t, `
template:
  metadata: {creationTimestamp: null}
  spec:
    # as an API server fills them in
    restartPolicy: Always
    dnsPolicy: ClusterFirst
    schedulerName: default-scheduler
    terminationGracePeriodSeconds: 30
    securityContext: {}
    imagePullSecrets: [{name: a}, {name: b}, {name: a}]
    initContainers:
    - name: remora-redirect
      image: redirect:1
      imagePullPolicy: Always
      terminationMessagePath: /dev/termination-log
      terminationMessagePolicy: File
      securityContext: {capabilities: {add: [NET_RAW, NET_ADMIN]}}
    containers:
    - name: remora-sidecar
      image: sidecar:1
      resources: {requests: {cpu: 10m}, limits: {cpu: "1", memory: 1Gi}}
`))
	if len(errs) > 0 {
		t.Fatal(errs.ToAggregate())
	}
	if got.Sidecar.Image != "sidecar:1" || got.Redirect.Image != "redirect:1" || got.Sidecar.PullPolicy != corev1.PullIfNotPresent || got.Redirect.PullPolicy != corev1.PullAlways {
		t.Errorf("got %+v", got)
	}
	if !slices.Equal(got.RedirectCapabilities, []corev1.Capability{"NET_RAW", "NET_ADMIN"}) || len(got.PullSecrets) != 2 || got.Sidecar.Resources.Limits.Memory().String() != "1Gi" {
		t.Errorf("got %+v", got)
	}
	pod := mustInject(t, podOf(t, sleepPod), got)
	if env := pod.Spec.InitContainers[1].Env; env[0].Name != "GOMEMLIMIT" || env[0].Value != fmt.Sprint(7<<27) {
		t.Errorf("with a limit of 1Gi, the environment is %v", env)
	}
}

func TestAllFaultsOfTheSettingsAreToldAtOnce(t *testing.T) {
	f := func(text string, want ...string) {
		t.Helper()
		_, errs := injector.ParseSettings(templateOf(t, text))
		var got []string
		for _, err := range errs {
			got = append(got, err.Error())
		}
		if len(got) != len(want) {
			t.Errorf("got\n%s", strings.Join(got, "\n"))
			return
		}
		for i := range want {
			if !strings.HasPrefix(got[i], want[i]) {
				t.Errorf("got %s\nwant %s", got[i], want[i])
			}
		}
	}
	f(`{}`,
		"template.spec.containers: Required value: a container remora-sidecar",
		"template.spec.initContainers: Required value: a container remora-redirect")
	f(`
template:
  metadata: {labels: {a: b}, annotations: {a: b}}
  spec:
    nodeSelector: {a: b}
    restartPolicy: Never
    terminationGracePeriodSeconds: 5
    securityContext: {runAsUser: 1}
    imagePullSecrets: [{}, {name: remora-sidecar-keys}]
    initContainers:
    - name: remora-redirect
      image: "a b"
      imagePullPolicy: Sometimes
      args: [x]
      securityContext: {privileged: true, capabilities: {add: [NET_RAW, SYS_ADMIN], drop: [ALL]}}
    - {name: remora-redirect, image: c}
    containers:
    - name: remora-sidecar
      env: [{name: A}]
      volumeMounts: [{name: a, mountPath: /a}]
      securityContext: {runAsUser: 0}
      terminationMessagePolicy: FallbackToLogsOnError
      resources: {claims: [{name: a}], requests: {cpu: "2", memory: "0", nvidia.com/gpu: "1"}, limits: {cpu: "1", memory: 16Mi}}
    - {name: other, image: c}
`,
		"template.metadata.labels: Forbidden: it would have no effect",
		"template.metadata.annotations: Forbidden",
		"template.spec.restartPolicy: Forbidden",
		"template.spec.terminationGracePeriodSeconds: Forbidden",
		"template.spec.nodeSelector: Forbidden",
		"template.spec.securityContext: Forbidden",
		`template.spec.containers[1].name: Unsupported value: "other": supported values: "remora-sidecar"`,
		"template.spec.containers[0].image: Required",
		"template.spec.containers[0].resources.claims: Forbidden",
		"template.spec.containers[0].resources.requests[memory]: Invalid value: \"0\": write more than zero",
		`template.spec.containers[0].resources.requests: Unsupported value: "nvidia.com/gpu"`,
		`template.spec.containers[0].resources.requests[cpu]: Invalid value: "2": more than the limit 1`,
		`template.spec.containers[0].resources.limits[memory]: Invalid value: "16Mi": too little for the sidecar to start: write at least 32Mi`,
		`template.spec.containers[0].env[0].name: Unsupported value: "A": supported values: "HTTPS_PROXY", "NO_PROXY"`,
		"template.spec.containers[0].volumeMounts: Forbidden",
		"template.spec.containers[0].terminationMessagePolicy: Forbidden",
		"template.spec.containers[0].securityContext: Forbidden",
		"template.spec.initContainers[1].name: Duplicate",
		`template.spec.initContainers[0].image: Invalid value: "a b": an image has no white space`,
		`template.spec.initContainers[0].imagePullPolicy: Unsupported value: "Sometimes"`,
		`template.spec.initContainers[0].securityContext.capabilities.add[1]: Unsupported value: "SYS_ADMIN"`,
		"template.spec.initContainers[0].securityContext.capabilities.add: Required value: NET_ADMIN",
		"template.spec.initContainers[0].securityContext.capabilities.drop: Forbidden",
		"template.spec.initContainers[0].securityContext.privileged: Forbidden",
		"template.spec.initContainers[0].args: Forbidden",
		"template.spec.imagePullSecrets[0].name: Required",
		"template.spec.imagePullSecrets[1].name: Forbidden: remora-sidecar-keys is for the sidecar alone",
	)
}
