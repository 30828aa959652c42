//go:build linux

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/test/llmserver"
)

// The people of this test. None is an administrator.
const (
	ofTheTeam    = "e2e-plugin-team"    // has remora-viewer in the namespace
	ofTheCluster = "e2e-plugin-cluster" // has it everywhere
	ofBoth       = "e2e-plugin-both"    // has llm-viewer, too
	ofNothing    = "e2e-plugin-nobody"
)

// plugin is kubectl with the plug-in where kubectl finds it.
type plugin struct {
	in      string
	command func(ctx context.Context, as, line string) *exec.Cmd
}

// Nothing else runs meanwhile: what check looks at is what other tests disturb.
func TestKubectlRemora(t *testing.T) {
	in := injected(t, "e2e-plugin")
	p := newPlugin(t, in)
	apply(t, exampleProvider("sk-of-plugin")+"---"+pluginRoute+"---"+busyPod("user-type: guest"), "-n", in)
	p.bind(t, in, ofTheTeam, "rolebinding", "remora-viewer")
	p.bind(t, in, ofTheCluster, "clusterrolebinding", "remora-viewer")
	p.bind(t, in, ofBoth, "clusterrolebinding", "remora-viewer")
	p.bind(t, in, ofBoth, "rolebinding", "llm-viewer")
	awaitReady(t, in, "pod/busy")
	kubectl(t, "-n", in, "wait", "--for=condition=ResolvedRefs", "llmproviders,llmroutes", "--all", "--timeout="+patience.String())

	t.Run("TopShowsCallsTokensAndErrors", p.top)
	t.Run("ConfigIsThatOfThePodWithoutItsKeys", p.config)
	t.Run("ExplainSaysWhereACallWouldGo", p.explain)
	t.Run("WhoHasNotTheRoleIsToldSo", p.stranger)
	t.Run("CheckFindsNothingWhereNothingIsWrong", p.healthy)
	t.Run("CheckSaysWhatIsWrongAndWhatToDo", p.findings)
	t.Run("TailGoesOnWithThePodThatReplacesAnother", p.tail)
}

func newPlugin(t *testing.T, in string) *plugin {
	t.Helper()
	folder := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(folder, "kubectl-remora"), root+"/webhook/kubectl-remora").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	path := "PATH=" + folder + ":" + os.Getenv("PATH")
	return &plugin{in: in, command: func(ctx context.Context, as, line string) *exec.Cmd {
		args := []string{"remora", "--kubeconfig=" + cluster.Kubeconfig(), "--namespace=" + in} // before the line: of two namespaces, the last counts
		if as != "" {
			args = append(args, "--as="+as)
		}
		cmd := exec.CommandContext(ctx, cluster.Binary("kubectl"), append(args, strings.Fields(line)...)...)
		cmd.Env = append(os.Environ(), path, "NO_PROXY=*", "TZ=UTC")
		return cmd
	}}
}

// bind gives a role to somebody for as long as the test runs.
func (p *plugin) bind(t *testing.T, in, who, kind, role string) {
	t.Helper()
	name := who + "-" + role
	kubectl(t, "-n", in, "create", kind, name, "--clusterrole="+role, "--user="+who)
	if kind == "clusterrolebinding" {
		t.Cleanup(func() { kubectl(t, "delete", kind, name) })
	}
}

// call gives what the plug-in writes, complaints included, and its exit code.
func (p *plugin) call(t *testing.T, as, line string) (string, int) {
	t.Helper()
	out, err := p.command(t.Context(), as, line).CombinedOutput()
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
	if ended != nil {
		return string(out), ended.ExitCode()
	}
	return string(out), 0
}

// says calls with success, or ends the test.
func (p *plugin) says(t *testing.T, as, line string) string {
	t.Helper()
	out, code := p.call(t, as, line)
	if code != 0 {
		t.Fatalf("%s: exit code %d\n%s", line, code, out)
	}
	return out
}

// The Service is for the name alone.
const pluginRoute = `
apiVersion: v1
kind: Service
metadata: {name: demo-llm-server}
spec: {ports: [{port: 80}]}
---
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMRoute
metadata: {name: chat}
spec:
  host: demo-llm-server
  rules:
  - name: subscribers
    matches: [{headers: {user-type: {exact: subscriber}}}]
    backendRefs: [{providerHost: ` + example + `}]
  - name: everybody
    backendRefs: [{providerHost: ` + example + `}]
`

// busyPod is YAML of one whose app calls without pause, with a header: once as it should be, once for a stream that does not say what it
// cost, and once for a failure.
func busyPod(header string) string {
	call := `curl --silent --output /dev/null --max-time 60 http://demo-llm-server -H '` + header + `' `
	faulty := func(fault string) string { return call + `-H '` + llmserver.FaultHeader + `: ` + fault + `' ` }
	return pod("busy", container("app", `trap exit TERM
while true; do
  `+call+`--data '`+question("of a busy app")+`'
  `+faulty("usage=none chunk-delay=10ms")+`--data '{"stream":true,"messages":[{"role":"user","content":"of a busy app"}]}'
  `+faulty("status=500")+`--data '`+question("in vain")+`'
  sleep 0.05
done`))
}

func (p *plugin) top(t *testing.T) {
	var report struct {
		Rows []struct {
			Name     string
			Requests float64 `json:"requestsPerSecond"`
			Failed   float64 `json:"errorsPerSecond"`
			Input    float64 `json:"inputTokensPerSecond"`
			Output   float64 `json:"outputTokensPerSecond"`
			About    float64 `json:"estimatedOutputTokensPerSecond"`
			First    float64 `json:"firstTokenP50Milliseconds"`
		}
		Silent []any
	}
	eventually(t, "top shows all that happens", func() (string, bool) {
		out := p.says(t, ofTheTeam, "top --once -o json")
		report.Rows, report.Silent = nil, nil
		if err := json.Unmarshal([]byte(out), &report); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if len(report.Rows) != 1 || len(report.Silent) != 0 {
			return out, false
		}
		r := report.Rows[0]
		return out, r.Name == p.in+"/busy" && r.Requests > r.Failed && r.Failed > 0 && r.Input > 0 && r.Output > 0 && r.About > 0 && r.First > 0
	})
	for _, by := range []string{"pod/busy", "--by model --sort tokens", "--by provider"} {
		out := p.says(t, ofTheTeam, "top --once "+by)
		t.Logf("top --once %s\n%s", by, out)
		has(t, "top", out, "REQ/S", "ERRORS/S", "total", "~")
	}
	has(t, "top -A", p.says(t, ofTheCluster, "top --once -A"), p.in+"/busy")
}

func (p *plugin) config(t *testing.T) {
	out := p.says(t, ofTheTeam, "config pod/busy -o json")
	if !json.Valid([]byte(out)) || strings.Contains(out, "sk-of-plugin") {
		t.Errorf("config is\n%s", out)
	}
	has(t, "config", out, "demo-llm-server", "subscribers", example)
	has(t, "config", p.says(t, ofTheTeam, "config busy"), "host demo-llm-server", "rule 2 everybody")
}

func (p *plugin) explain(t *testing.T) {
	out := p.says(t, ofTheTeam, "explain request --from pod/busy --host demo-llm-server -H user-type:subscriber")
	has(t, "explain", out, "LLMRoute "+p.in+`/chat, rule 1 "subscribers"`, "LLMProvider "+p.in+"/example", "https://"+example+":443/v1/chat/completions")
	out = p.says(t, ofTheTeam, "explain request --from pod/busy --host demo-llm-server -H user-type:guest")
	has(t, "explain", out, `rule 2 "everybody"`, "passed over", `"guest"`)
}

func (p *plugin) stranger(t *testing.T) {
	for _, line := range []string{
		"top --once", "top --once pod/busy", "config pod/busy", "explain request --from pod/busy --host a", "tail --follow=false", "tail pod/busy --follow=false", "check",
	} {
		if out, code := p.call(t, ofNothing, line); code != 1 || !strings.Contains(out, "remora-viewer") || strings.Contains(out, example) {
			t.Errorf("%s: exit code %d\n%s", line, code, out)
		}
	}
	// Who has the role for a namespace has it for no other.
	if out, code := p.call(t, ofTheTeam, "top --once -A"); code != 1 || !strings.Contains(out, "forbidden") {
		t.Errorf("top -A: exit code %d\n%s", code, out)
	}
	if out, code := p.call(t, ofTheTeam, "tail --follow=false -n "+system); code != 1 || !strings.Contains(out, "forbidden") {
		t.Errorf("tail of another namespace: exit code %d\n%s", code, out)
	}
}

func (p *plugin) healthy(t *testing.T) {
	out := p.says(t, ofTheCluster, "check --own-namespace")
	t.Logf("check, with remora-viewer\n%s", out)
	has(t, "check", out, "ok     webhook", "ok     controller", "ok     sidecars     1 object looked at", "unseen objects", "nothing is wrong with what could be looked at")
	out = p.says(t, ofBoth, "check --own-namespace")
	t.Logf("check, with llm-viewer, too\n%s", out)
	has(t, "check", out, "ok     objects", "2 objects looked at")
	if out = p.says(t, "", "check --own-namespace"); !strings.HasSuffix(out, "\nhealthy\n") || strings.Contains(out, "not looked at") {
		t.Errorf("check, of an administrator:\n%s", out)
	}
}

func (p *plugin) findings(t *testing.T) {
	finds := func(as, in, what string, words ...string) {
		t.Helper()
		eventually(t, "check finds "+what, func() (string, bool) {
			out, code := p.call(t, as, "check --own-namespace -n "+in)
			for _, w := range append(words, "    → ") {
				if !strings.Contains(out, w) {
					return out, false
				}
			}
			t.Logf("check, with %s\n%s", what, out)
			return out, code == 1
		})
	}
	apply(t, strings.Replace(provider, "name: example", "name: keyless", 1), "-n", p.in)
	finds(ofBoth, p.in, "a provider without its Secret", "wrong  objects", "LLMProvider "+p.in+"/keyless: ResolvedRefs is False: SecretNotFound", "there-is-none", "1 finding")

	// A pod that is older than the label, in a namespace whose quota keeps the controller from making what sidecars need.
	late := labelled(t, "e2e-plugin-late")
	apply(t, "apiVersion: v1\nkind: ResourceQuota\nmetadata: {name: none}\nspec: {hard: {secrets: 0}}\n---"+pod("early", container("app", idle)), "-n", late)
	awaitReady(t, late, "pod/early")
	kubectl(t, "label", "namespace", late, v1beta1.InjectLabel+"="+v1beta1.InjectEnabled)
	finds(ofTheCluster, late, "a pod without a sidecar", "Pod "+late+"/early: it has no sidecar", "kubectl rollout restart")
	finds("", late, "a namespace without its Secrets", "Secret "+late+"/"+v1beta1.AccessSecret+": it is not there", "Secret "+late+"/"+v1beta1.KeysSecret+": it is not there")
}

func (p *plugin) tail(t *testing.T) {
	out := p.says(t, ofTheTeam, "tail pod/busy --follow=false -o text")
	t.Logf("tail pod/busy -o text\n%s", out)
	has(t, "tail", out, p.in+"/busy 200 small", " tokens ", p.in+"/chat/everybody", " 500 ")
	if out := p.says(t, ofTheTeam, "tail pod/busy --follow=false --errors -o text"); strings.Contains(out, " 200 ") {
		t.Errorf("tail --errors shows\n%s", out)
	}

	cmd := p.command(t.Context(), ofTheTeam, "tail pod/busy")
	lines, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	came := make(chan string)
	go func() {
		defer close(came)
		for all := bufio.NewScanner(lines); all.Scan(); {
			select {
			case came <- all.Text():
			case <-t.Context().Done():
				return
			}
		}
	}()
	// until awaits a line of a call by that rule.
	until := func(rule string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		for {
			select {
			case line, open := <-came:
				var call struct{ Pod, Namespace, Rule string }
				if err := json.Unmarshal([]byte(line), &call); err != nil || !open {
					t.Fatalf("tail writes %q: %v", line, err)
				}
				if call.Rule == p.in+"/chat/"+rule && call.Pod == "busy" && call.Namespace == p.in {
					return
				}
			case <-ctx.Done():
				t.Fatalf("no line of a call by rule %s", rule)
			}
		}
	}
	until("everybody")
	kubectl(t, "-n", p.in, "delete", "pod", "busy")
	apply(t, busyPod("user-type: subscriber"), "-n", p.in)
	until("subscribers")
}
