package controlplane_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"remora.dev/remora/test/cluster/controlplane"
)

func TestAKilledAPIServerComesBackWithWhatItHad(t *testing.T) {
	cp, err := controlplane.Start(t.Context(), controlplane.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer cp.Stop()
	kubectl := func(args ...string) string {
		t.Helper()
		out, err := cp.Kubectl(t.Context(), args...)
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return out
	}
	kubectl("create", "configmap", "kept")
	cp.APIServer.Kill()
	if out, err := cp.Kubectl(t.Context(), "get", "configmap", "kept"); err == nil {
		t.Errorf("a killed API server answers:\n%s", out)
	}
	if err := cp.APIServer.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out := kubectl("get", "configmap", "kept"); !strings.Contains(out, "kept") {
		t.Error(out)
	}
	if err := cp.APIServer.Freeze(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if out, err := cp.Kubectl(ctx, "get", "configmap", "kept"); err == nil {
		t.Errorf("a frozen API server answers:\n%s", out)
	}
	if err := cp.APIServer.Thaw(); err != nil {
		t.Fatal(err)
	}
	kubectl("get", "configmap", "kept")

	api, etcd := cp.APIServer.PID(), cp.Etcd.PID()
	cp.Stop()
	for _, pid := range []int{api, etcd} {
		if err := syscall.Kill(pid, 0); err == nil {
			t.Error(fmt.Sprint("process ", pid, " runs after Stop"))
		}
	}
	if _, err := os.Stat(cp.Folder()); !os.IsNotExist(err) {
		t.Errorf("its folder is still there: %v", err)
	}
}
