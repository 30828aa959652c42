//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remora.dev/remora/apis/v1beta1"
)

// processes gives the process of each container of a pod that runs, by the container's name; "" is that of its sandbox, which
// is there before all others. The kernel names the container in the cgroup of a process.
func processes(pod *corev1.Pod) (map[string]int, error) {
	containers := map[string]string{}
	for _, status := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		if _, id, ok := strings.Cut(status.ContainerID, "://"); ok && status.State.Running != nil {
			containers[id] = status.Name
		}
	}
	files, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		return nil, err
	}
	found := map[string]int{}
	for _, file := range files {
		cgroup, err := os.ReadFile(file)
		if err != nil { // it has just ended
			continue
		}
		in := string(cgroup)
		if !strings.Contains(in, "pod"+string(pod.UID)) && !strings.Contains(in, "pod"+strings.ReplaceAll(string(pod.UID), "-", "_")) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			return nil, err
		}
		name := ""
		for id, container := range containers {
			if strings.Contains(in, id) {
				name = container
			}
		}
		if first, ok := found[name]; !ok || pid < first {
			found[name] = pid
		}
	}
	if len(found) != len(containers)+1 {
		return nil, fmt.Errorf("of the %d containers of pod %s and its sandbox, these have a process here: %v", len(containers), pod.Name, found)
	}
	return found, nil
}

// component gives the process of a part of this node, such as kube-apiserver.
func (b *bench) component(name string) (int, error) {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return 0, err
	}
	for _, file := range files {
		cmdline, _ := os.ReadFile(file) // where it fails, the process has just ended
		program, _, _ := strings.Cut(string(cmdline), "\x00")
		cgroup, _ := os.ReadFile(filepath.Join(filepath.Dir(file), "cgroup"))
		if filepath.Base(program) == name && strings.Contains(string(cgroup), "remora-"+b.cluster.Name()) {
			return strconv.Atoi(filepath.Base(filepath.Dir(file)))
		}
	}
	return 0, fmt.Errorf("there is no process of the node's %s", name)
}

// started gives when a process was started, to 10 ms.
func started(pid int) (time.Time, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return time.Time{}, err
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 20 {
		return time.Time{}, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	ticks, err := strconv.ParseInt(fields[19], 10, 64) // since the machine was started
	if err != nil {
		return time.Time{}, err
	}
	var up unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &up); err != nil {
		return time.Time{}, err
	}
	return time.Now().Add(time.Duration(ticks)*10*time.Millisecond - time.Duration(up.Nano())), nil
}

// system gives the processes of a Deployment of the installation, one for each replica.
func (b *bench) system(ctx context.Context, deployment, container string) (pids []int, err error) {
	pods, err := b.client.CoreV1().Pods(v1beta1.InstallationNamespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=" + deployment})
	if err != nil {
		return nil, err
	}
	for _, pod := range pods.Items {
		all, err := processes(&pod)
		if err != nil {
			return nil, err
		}
		pids = append(pids, all[container])
	}
	if len(pids) == 0 {
		return nil, errors.New("no pod of " + deployment)
	}
	return pids, nil
}
