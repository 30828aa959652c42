package integration

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/test/cluster/assets"
	"remora.dev/remora/test/cluster/controlplane"
	"remora.dev/remora/test/installation"
	"remora.dev/remora/test/llmserver"
)

// faults is an installation of which each part is killed or frozen in turn, and started again by the test that did it.
type faults struct {
	*installation.Installation
	providers *llmserver.Server
}

// One installation for all of them, which ends with the last.
func TestFaults(t *testing.T) {
	t.Parallel()
	binaries, err := assets.Dir(t.Context(), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	cp, err := controlplane.Start(t.Context(), controlplane.Options{
		Binaries: binaries, APIServerArgs: []string{"--etcd-compaction-interval=1s"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cp.Stop)
	in, err := installation.Start(t.Context(), cp)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(in.Controller.Kill)
	t.Cleanup(in.Webhook.Kill)
	t.Cleanup(func() {
		if t.Failed() {
			for _, p := range []*controlplane.Process{in.Webhook, in.Controller} {
				text, err := os.ReadFile(p.Log())
				t.Logf("%s (%v):\n%s", p.Log(), err, text[max(0, len(text)-20000):])
			}
		}
	})
	f := &faults{in, newProvider(t, llmserver.Options{})}

	t.Run("WhileNoWebhookAnswersOnlyWritesOfTheTwoKindsFail", f.noWebhookAnswers)
	t.Run("AnObjectThatAnOlderVersionAdmittedHarmsNobodyElse", f.anObjectOfAnOlderVersion)
	t.Run("SideBySide", func(t *testing.T) {
		t.Run("WhileTheControllerIsAwayOnlyTheStatusIsOld", f.theControllerIsAway)
		t.Run("AWatchThatIsCutEverySecondMissesNothing", f.theWatchIsCutEverySecond)
		t.Run("ASlowAPIServerIsFollowed", f.theAPIServerIsSlow)
		t.Run("AKeyIsRotatedAndRevokedWhileCallsRun", f.aKeyIsRotatedAndRevoked)
	})
	t.Run("WhileTheControllerIsAwayAStolenKeyCanBeTakenFromAll", f.theControllerIsAwayAndAKeyIsStolen)
	t.Run("WhileTheAPIServerIsKilledCallsGoOn", f.theAPIServerIsKilled)
	t.Run("WhileTheAPIServerIsFrozenCallsGoOn", f.theAPIServerIsFrozen)
	t.Run("WhileEtcdIsKilledCallsGoOn", f.etcdIsKilled)
}

// tenant makes a namespace in which dashscope answers for the host chat, and a sidecar of it.
func (f *faults) tenant(t *testing.T) (*tenant, *sidecar) {
	t.Helper()
	n := newTenant(t, f.Installation)
	n.apply(t, providerOf(t, f.providers, "one", dashscope, "qwen-turbo")+providerOf(t, f.providers, "two", moonshot, "moonshot-v1-8k")+routeOf("chat", "chat", 1, 0))
	return n, n.sidecar(t, f.providers)
}

// moves has another provider answer for the host chat, and waits until the sidecars have it so. Nothing is demanded of how
// often that is tried: what was away may need a moment.
func (n *tenant) moves(t *testing.T, to string, sidecars ...*sidecar) {
	t.Helper()
	route := routeOf("chat", "chat", 1, 0)
	if to == moonshot {
		route = routeOf("chat", "chat", 0, 1)
	}
	await(t, "a change to be admitted", func() (string, bool) {
		out, err := n.tryApply(t, route)
		return out, err == nil
	})
	for _, s := range sidecars {
		await(t, "calls to move to "+to, func() (string, bool) {
			a := s.mustAsk(t, "chat")
			return fmt.Sprintf("%+v", a), a.provider == to
		})
	}
}

// kubelet starts a program again that has ended, as a kubelet would.
func kubelet(t *testing.T, p *controlplane.Process) {
	t.Helper()
	if p.PID() != 0 && syscall.Kill(p.PID(), 0) == nil {
		return
	}
	p.Kill() // so that its end is noted
	if err := p.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// writesFail demands that changes of both kinds are refused soon, for want of a webhook.
func (n *tenant) writesFail(t *testing.T, why string) {
	t.Helper()
	var both sync.WaitGroup
	for name, patch := range map[string]string{
		"llmprovider/one": `{"spec":{"configs":{"defaultConfig":{"openAIConfig":{"model":"qwen-max"}}}}}`,
		"llmroute/chat":   `{"spec":{"rules":[{"backendRefs":[{"providerHost":"api.moonshot.cn"}]}]}}`,
	} {
		both.Go(func() {
			began := time.Now()
			out, err := n.Kubectl(t.Context(), "-n", n.namespace, "patch", name, "--type=merge", "-p", patch)
			hook := strings.Split(name, "/")[0] + "s.remora.dev"
			if err == nil || !strings.Contains(out, `failed calling webhook "`+hook+`"`) || !strings.Contains(out, why) {
				t.Errorf("with no webhook, %s is patched with %v; want %s, %s:\n%s", name, err, hook, why, out)
			}
			if took := time.Since(began); took > 15*time.Second {
				t.Errorf("with no webhook, kubectl patch took %s", took)
			}
		})
	}
	both.Wait()
}

func (f *faults) noWebhookAnswers(t *testing.T) {
	n, s := f.tenant(t)
	n.apply(t, routeOf("spare", "spare", 1, 1))
	n.awaitOutput(t, "spare spare 1 True True", "get", "llmroutes")
	apps := s.call(t, 2, "chat")

	if err := f.Webhook.Freeze(); err != nil {
		t.Fatal(err)
	}
	n.writesFail(t, "context deadline exceeded")
	f.Webhook.Kill()
	n.writesFail(t, "connection refused")
	n.kubectl(t, "create", "configmap", "unrelated")
	n.kubectl(t, "label", "configmap", "unrelated", "still=works")
	n.kubectl(t, "delete", "llmroute", "spare")
	before := s.generation(t)
	n.kubectl(t, "delete", "llmprovider", "two") // deletes are never denied
	n.awaitOutput(t, "chat chat 1 True False", "get", "llmroutes")
	s.awaitChange(t, before)
	apps.more(t, 20)

	if err := f.Webhook.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.apply(t, providerOf(t, f.providers, "two", moonshot, "moonshot-v1-8k"))
	n.moves(t, moonshot, s)
	apps.noneFailed(t)
	if out, err := n.tryApply(t, strings.Replace(routeOf("bad", "chat", 1, 1), "host: chat", "host: http://chat", 1)); err == nil {
		t.Errorf("a webhook that was started again refuses nothing:\n%s", out)
	}
}

// What is Invalid here and was not where it was written: as after an upgrade, or where the webhook was taken away for a while.
func (f *faults) anObjectOfAnOlderVersion(t *testing.T) {
	n, s := f.tenant(t)
	apps := s.call(t, 2, "chat")
	invalid := strings.Replace(providerOf(t, f.providers, "old", "llm.example.com", "m"), "  configs:", "  tls: {caBundle: bm90IGEgY2VydGlmaWNhdGU=}\n  configs:", 1)
	if out, err := n.tryApply(t, invalid); err == nil {
		t.Fatalf("this version does not find it invalid:\n%s", out)
	}
	n.kubectl(t, "delete", "validatingwebhookconfiguration", v1beta1.WebhookName)
	await(t, "admission without a webhook", func() (string, bool) {
		out, err := n.tryApply(t, invalid)
		return out, err == nil
	})
	n.kubectl(t, "apply", "--server-side", "-f", "../../config/webhook/admission.yaml")
	await(t, "the webhook to be asked again", func() (string, bool) {
		out, err := n.tryApply(t, strings.ReplaceAll(invalid, "old", "another"), "--dry-run=server")
		return out, err != nil && strings.Contains(out, "spec.tls.caBundle")
	})

	n.awaitOutput(t, "old llm.example.com m False True", "get", "llmproviders")
	n.awaitOutput(t, "remora-controller spec.tls.caBundle: is not PEM", "describe", "llmprovider", "old")
	s.awaitConfig(t, "host llm.example.com\n  refused InvalidConfiguration")
	if a := s.mustAsk(t, "llm.example.com"); a.status != http.StatusServiceUnavailable || a.code != "InvalidConfiguration" {
		t.Errorf("a call to what is invalid: %+v", a)
	}
	// It can be labelled, finalized and the like, but not changed into something else that is invalid.
	warns(t, n.kubectl(t, "label", "llmprovider", "old", "team=a"), "spec.tls.caBundle: is not PEM")
	if out, err := n.Kubectl(t.Context(), "-n", n.namespace, "patch", "llmprovider", "old", "--type=merge", "-p", `{"spec":{"path":"/v2/chat/completions"}}`); err == nil {
		t.Errorf("it may stay invalid in a new way:\n%s", out)
	}
	n.moves(t, moonshot, s) // the rest goes on

	n.apply(t, providerOf(t, f.providers, "old", "llm.example.com", "m"))
	n.awaitOutput(t, "old llm.example.com m True True", "get", "llmproviders")
	s.awaitConfig(t, "https://llm.example.com:"+portOf(t, f.providers))
	apps.noneFailed(t)
}

// The one that takes its place waits for the Lease of the one that was killed: 15 seconds.
func (f *faults) theControllerIsAway(t *testing.T) {
	t.Parallel()
	n, s := f.tenant(t)
	apps := s.call(t, 1, "chat")
	n.awaitOutput(t, "chat chat 1 True True", "get", "llmroutes")
	f.Controller.Kill()
	defer kubelet(t, f.Controller)

	n.moves(t, moonshot, s)
	out := n.apply(t, routeOf("later", "later", 1, 0))
	if !strings.Contains(out, "created") {
		t.Error(out)
	}
	out = n.apply(t, strings.ReplaceAll(routeOf("later", "later", 1, 0), dashscope, "nobody.example.com"))
	warns(t, out, "no LLMProvider with host nobody.example.com")
	const generations = "{.metadata.generation} {.status.conditions[*].observedGeneration}"
	if got := n.kubectl(t, "get", "llmroute", "chat", "-o", "jsonpath="+generations); got != "2 1 1" {
		t.Errorf("generation and observed generations are %q: somebody else writes the status", got)
	}
	kubelet(t, f.Controller)
	n.awaitOutput(t, "2 2 2", "get", "llmroute", "chat", "-o", "jsonpath="+generations)
	n.awaitOutput(t, "later later 1 True False", "get", "llmroutes")
	apps.noneFailed(t)
}
