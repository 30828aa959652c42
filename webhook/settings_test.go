package main

import (
	"strings"
	"testing"

	"github.com/go-logr/logr/funcr"
	corev1 "k8s.io/api/core/v1"

	"remora.dev/remora/apis/v1beta1"
)

func TestAProxyThatCannotBeUsedLeavesTheOneBeforeAndShowsNoPassword(t *testing.T) {
	template := func(proxy string) *corev1.PodTemplate {
		return &corev1.PodTemplate{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
			InitContainers: []corev1.Container{{Name: v1beta1.RedirectContainer, Image: "redirect"}},
			Containers:     []corev1.Container{{Name: v1beta1.SidecarContainer, Image: "sidecar", Env: []corev1.EnvVar{{Name: "HTTPS_PROXY", Value: proxy}}}},
		}}}
	}
	var log strings.Builder
	s := &settings{namespace: v1beta1.InstallationNamespace, log: funcr.New(func(_, args string) { log.WriteString(args) }, funcr.Options{})}
	const good = "http://app:hunter2@proxy.corp:3128"
	s.take(template(good))
	s.take(template("socks5://app:hunter2@proxy.corp:1080"))
	if got, err := s.current(); err != nil || len(got.Egress) != 1 || got.Egress[0].Value != good {
		t.Errorf("%+v %v", got, err)
	}
	if remark := s.remark(); !strings.Contains(remark, "template.spec.containers[0].env[0].value") || !strings.Contains(remark, "the scheme socks5") {
		t.Errorf("what is wrong is not said: %s", remark)
	}
	if strings.Contains(s.remark()+log.String(), "hunter2") {
		t.Errorf("the password is shown: %s %s", s.remark(), log.String())
	}
}
