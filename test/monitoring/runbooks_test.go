package monitoring

import (
	"regexp"
	"strings"
	"testing"
)

// Where an alert leads somebody at night there is a chapter, with something to type; and no chapter is about an alert that is no more.
func TestEachAlertHasARunbookAndEachRunbookAnAlert(t *testing.T) {
	_, text, _ := strings.Cut(read(t, root+"docs/runbooks.md"), "\n## ")
	chapters := map[string]string{}
	for chapter := range strings.SplitSeq(text, "\n## ") {
		name, body, _ := strings.Cut(chapter, "\n")
		chapters[name] = body
	}
	for _, a := range alerts(t) {
		body := chapters[a.Alert]
		delete(chapters, a.Alert)
		for _, want := range []string{"**Users see** ", "**What to do.** ", "\n    kubectl ", "**It ends** ", "*" + a.Labels["severity"] + ","} {
			if !strings.Contains(body, want) {
				t.Errorf("the chapter of %s has no %q", a.Alert, want)
			}
		}
		if at := a.Annotations["runbook_url"]; at != "docs/runbooks.md#"+strings.ToLower(a.Alert) { // a path in whatever clone
			t.Errorf("%s leads to %q", a.Alert, at)
		}
	}
	for name := range chapters {
		t.Errorf("no alert leads to the chapter %s", name)
	}
}

// Panels and rules are about metrics that the sidecar describes, or that the webhook and the controller show.
func TestWhatPanelsAndRulesAreAboutIsDescribed(t *testing.T) {
	known := read(t, root+"sidecar/metrics/describe.go") + read(t, root+"webhook/access_metrics.go") + read(t, root+"webhook/certs.go")
	texts := read(t, root+"config/monitoring/rules.yaml")
	for _, b := range dashboards(t) {
		for _, q := range b.queries() {
			texts += q.expr + "\n"
		}
	}
	texts = recorded.ReplaceAllString(texts, "")
	for _, name := range regexp.MustCompile(`\b(remora|gen_ai_client|asm_llm_proxy)_[a-z_]+`).FindAllString(texts, -1) {
		if !strings.Contains(known, suffix.ReplaceAllString(name, "")) {
			t.Errorf("%s is described nowhere", name)
		}
	}
}
