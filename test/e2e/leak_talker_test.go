//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"golang.org/x/sys/unix"
)

// talker is a pod that calls hosts without pause, from the first moment of its init container to the last of its app, which
// takes its time when it is told to end. What came
// of each call is read from the node's logs, so that no API server is needed for it.
type talker struct {
	in, name, uid string

	known map[string]talked // by their prompts: the kubelet removes logs
}

// talkTime is how long a call of a talker may take. On a machine with much else to do, a sidecar that starts takes some of it.
const talkTime = 10 * time.Second

// talk starts one. Its prompts bear the marker several times, as one of them may be divided between two packets.
func talk(t *testing.T, in, name, marker string, kept []string, told string) *talker {
	t.Helper()
	const call = `
run=$(date +%%s%%N)
call() { # KIND HOST NUMBER
  prompt=$1$run-${2%%%%.*}-$3
  said=%[1]s$prompt
  curl --silent --output /dev/null --max-time %[2]v --write-out "call $2 %%{http_code} %%{exitcode} %%{time_total} $prompt\n" \
    http://$2/v1/chat/completions --json "{\"model\":\"any\",\"messages\":[{\"role\":\"user\",\"content\":\"$said $said $said\"}]}"
}
kept="%[3]s" told="%[4]s"
`
	common := fmt.Sprintf(call, marker, talkTime.Seconds(), strings.Join(kept, " "), told)
	early := common + `
for i in 1 2 3; do
  for host in $kept; do call ` + keptPrompt + ` $host $i; done
  call ` + toldPrompt + ` $told $i
done`
	late := common + `
talk() { i=0; while i=$((i + 1)); do call $1 $2 $i; sleep 0.3; done; }
trap 'sleep 2; exit' TERM
for host in $kept; do talk ` + keptPrompt + ` $host & done
talk ` + toldPrompt + ` $told &
while :; do wait; done`
	apply(t, fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  terminationGracePeriodSeconds: 20
  initContainers: [%s]
  containers: [%s]
`, name, container("early", early), container("app", late)), "-n", in)
	k := &talker{in: in, name: name, known: map[string]talked{}}
	k.uid = string(k.pod(t).UID)
	return k
}

func (k *talker) pod(t *testing.T) *corev1.Pod {
	t.Helper()
	p, err := client.CoreV1().Pods(k.in).Get(t.Context(), k.name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// talked is what came of a call.
type talked struct {
	container string
	began     time.Time
	took      time.Duration
	host      string
	status    int // 0: there was no answer
	exit      int // curl's
	prompt    string
}

// String shows a call as tests tell of it.
func (c talked) String() string {
	return fmt.Sprintf("%s: %s of %s: status %d, curl %d, %v", c.began.Format("15:04:05.000"), c.host, c.container, c.status, c.exit, c.took)
}

const (
	curlRefused = 7
	curlEmpty   = 52
	curlSend    = 55
	curlReset   = 56
	curlTimeout = 28
)

// calls are all that have ended so far, in the order in which they began.
func (k *talker) calls(t *testing.T) []talked {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(cluster.PodLogs(), k.in+"_"+k.name+"_"+k.uid, "*", "*.log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) { // 2026-01-02T03:04:05.678Z stdout F call HOST STATUS EXIT SECONDS PROMPT
			words := strings.Fields(line)
			if len(words) != 9 || words[3] != "call" {
				continue
			}
			c := talked{container: filepath.Base(filepath.Dir(file)), host: words[4], prompt: words[8]}
			ended, err := time.Parse(time.RFC3339Nano, words[0])
			seconds, err2 := strconv.ParseFloat(words[7], 64)
			if _, err3 := fmt.Sscan(words[5]+" "+words[6], &c.status, &c.exit); err != nil || err2 != nil || err3 != nil {
				t.Fatalf("a talker says %q", line)
			}
			c.took = time.Duration(seconds * float64(time.Second))
			c.began = ended.Add(-c.took)
			k.known[c.prompt] = c
		}
	}
	return slices.SortedFunc(maps.Values(k.known), func(a, b talked) int { return a.began.Compare(b.began) })
}

// since gives the calls that began from then on.
func (k *talker) since(t *testing.T, from time.Time) (some []talked) {
	t.Helper()
	for _, c := range k.calls(t) {
		if c.began.After(from) {
			some = append(some, c)
		}
	}
	return some
}

// await waits until the app's last call to each of the hosts, of those from a moment on, was answered with a status.
func (k *talker) await(t *testing.T, what string, from time.Time, statuses map[string]int) {
	t.Helper()
	eventually(t, k.name+": "+what, func() (string, bool) {
		last := map[string]talked{}
		for _, c := range k.since(t, from) {
			if c.container == "app" {
				last[c.host] = c
			}
		}
		for host, status := range statuses {
			if c, called := last[host]; !called || c.status != status {
				return fmt.Sprintf("%s has answered %v; want %d", host, c, status), false
			}
		}
		return "", true
	})
}

// process is the first one of a container of the pod that runs, and the container's ID.
func (k *talker) process(t *testing.T, container string) (pid int, id string) {
	t.Helper()
	eventually(t, container+" of "+k.name+" runs", func() (string, bool) {
		p := k.pod(t)
		for _, s := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
			if s.Name == container && s.State.Running != nil {
				_, id, _ = strings.Cut(s.ContainerID, "://")
				pid = processIn(k.uid+"/"+id, "")
			}
		}
		return fmt.Sprintf("%+v", p.Status), pid != 0
	})
	return pid, id
}

// processIn finds the process that is the first of its PID namespace, in a cgroup whose path ends so, or, if it is named, in one below.
func processIn(cgroup, name string) int {
	all, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range all {
		groups, err := os.ReadFile(filepath.Join(dir, "cgroup"))
		if err != nil || !strings.Contains(string(groups), cgroup) {
			continue
		}
		status, err := os.ReadFile(filepath.Join(dir, "status"))
		if err != nil {
			continue // it has just ended
		}
		own, comm := "", ""
		for line := range strings.Lines(string(status)) {
			words := strings.Fields(line)
			switch {
			case words[0] == "NSpid:":
				own = words[len(words)-1]
			case words[0] == "Name:" && len(words) > 1:
				comm = words[1]
			case words[0] == "State:" && words[1] == "Z":
				own = "" // it is only not collected yet
			}
		}
		if own != "1" || name != "" && comm != name {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil {
			return pid
		}
	}
	return 0
}

// signal sends one to the first process of a container.
func (k *talker) signal(t *testing.T, container string, s unix.Signal) {
	t.Helper()
	pid, _ := k.process(t, container)
	if err := unix.Kill(pid, s); err != nil {
		t.Fatal(err)
	}
}

// diagnose shows at the end of a failed test what came of the calls.
func (k *talker) diagnose(t *testing.T) {
	t.Helper()
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		var said strings.Builder
		last := map[string]talked{}
		for _, c := range k.calls(t) {
			before := last[c.container+c.host]
			if before.status != c.status || before.exit != c.exit || c.prompt == "" {
				fmt.Fprintln(&said, c)
			}
			last[c.container+c.host] = c
		}
		t.Logf("the calls of %s that ended otherwise than those before:\n%s", k.name, said.String())
	})
}
