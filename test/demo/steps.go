package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"remora.dev/remora/test/llmserver"
)

// ask is the article's own call.
const ask = `curl --silent --location 'http://dashscope.aliyuncs.com' --header 'Content-Type: application/json' ` +
	`--data '{"messages": [{"role": "user", "content": "请介绍你自己"}]}'`

// answered runs the call and gives the text of the answer.
func (d *demo) answered(call string) (string, error) {
	d.command(call)
	out := d.sh(call)
	d.output(out)
	var answer struct {
		Model   string
		Choices []struct{ Message struct{ Content string } }
	}
	if err := json.Unmarshal([]byte(out), &answer); err != nil || len(answer.Choices) == 0 {
		return "", fmt.Errorf("that is no answer of a model (%v)", err)
	}
	return answer.Model, nil
}

// received shows what the provider got.
func (d *demo) received() llmserver.Request {
	all := d.provider.Requests()
	q := all[len(all)-1]
	d.say("What the provider received:")
	scheme := "http"
	if q.TLS {
		scheme = "https"
	}
	d.output(fmt.Sprintf("%s %s://%s%s", q.Method, scheme, q.Host, q.Path))
	d.output("Authorization: " + q.Header.Get("Authorization"))
	d.output(string(q.Body))
	return q
}

func (d *demo) plainCall() error {
	d.title("A plain call")
	model, err := d.answered(ask)
	if err != nil {
		return err
	}
	q := d.received()
	if model != "qwen-1.8b-chat" || !q.TLS || q.Header.Get("Authorization") != "Bearer "+keys["DASHSCOPE_API_KEY"] {
		return fmt.Errorf("the provider got something else than the LLMProvider says")
	}
	d.notice("The app sent no path, no model and no key, in plain HTTP. The LLMProvider dashscope-qwen had all of them filled in, and TLS.")
	d.pause()
	return nil
}

func (d *demo) subscriber() error {
	d.title("A header decides about the model")
	model, err := d.answered(ask + ` --header 'user-type: subscriber'`)
	if err != nil {
		return err
	}
	if model != "qwen-turbo" {
		return fmt.Errorf("the model is %s", model)
	}
	d.notice("The rule vip-route of the LLMRoute matched, so the provider's config for vip-route applied: qwen-turbo.")
	d.pause()
	return nil
}

// calls asks the virtual name n times and counts who answered.
func calls(n int) string {
	return fmt.Sprintf(`for i in $(seq %d); do curl --silent http://%s --data '{"messages":[{"role":"user","content":"hi"}]}'; done | grep --only-matching '"model":"[^"]*"' | sort | uniq --count`, n, virtual)
}

func (d *demo) split() error {
	d.title("A name that no DNS knows, split over two providers")
	d.command(calls(200))
	out := d.sh(calls(200))
	d.output(out)
	total := 0
	for line := range strings.SplitSeq(out, "\n") {
		var n int
		var model string
		if _, err := fmt.Sscan(line, &n, &model); err != nil {
			return fmt.Errorf("not every call was answered: %q", line)
		}
		d.output(fmt.Sprintf("%-26s %s %.1f %%", strings.Trim(strings.TrimPrefix(model, `"model":`), `"`), strings.Repeat("█", n/4), float64(n)/2))
		total += n
	}
	if total != 200 {
		return fmt.Errorf("%d of 200 calls were answered", total)
	}
	d.notice("The LLMRoute demo-llm-server gives each provider half. Each got its own path, model and key.")
	d.pause()
	return nil
}

func (d *demo) stream() error {
	d.title("A streamed answer arrives event by event")
	call := `curl --silent --no-buffer http://dashscope.aliyuncs.com --data '{"stream": true, "messages": [{"role": "user", "content": "hello"}]}'`
	d.command(call)
	begin, events := time.Now(), 0
	var last time.Duration
	if err := d.lines(call, func(line string) {
		if !strings.HasPrefix(line, "data: ") {
			return
		}
		events++
		last = time.Since(begin)
		var chunk struct {
			Choices []struct{ Delta struct{ Content string } }
		}
		text := strings.TrimPrefix(line, "data: ")
		if json.Unmarshal([]byte(text), &chunk) == nil && len(chunk.Choices) > 0 {
			text = fmt.Sprintf("%q", chunk.Choices[0].Delta.Content)
		}
		d.output(fmt.Sprintf("%5d ms  %s", last.Milliseconds(), text))
	}); err != nil {
		return err
	}
	if events < 5 || last < time.Duration(events-2)*100*time.Millisecond {
		return fmt.Errorf("%d events in %s: they did not come one by one", events, last)
	}
	d.notice("The provider wrote one event every 120 ms. Each was here at once: nothing waits for the next.")
	d.pause()
	return nil
}

func (d *demo) refused() error {
	d.title("Bad configuration is refused, and says what to do")
	file := filepath.Join(d.config, "demo-llm-server.yaml")
	good, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	edit := `sed --in-place 's/weight: 0/weight: -1/; s/host: demo-llm-server/host: http:\/\/demo-llm-server:80/; s/providerHost: api.moonshot.cn/providerhost: api.moonshot.cn/' ` + file
	d.command(d.short(edit))
	d.output(d.sh(edit))
	check := d.binary + " check --config " + d.config
	d.command("sidecar check --config config")
	out := d.sh(check + `; echo "exit code $?"`)
	d.output(d.short(out))
	if !strings.Contains(out, "exit code 1") {
		return fmt.Errorf("the check found nothing")
	}
	d.notice("All faults at once, each with its field and its remedy. The running sidecar goes on with the last good version:")
	d.command(calls(20))
	out = d.sh(calls(20))
	d.output(out)
	if strings.TrimSpace(out) != `20 "model":"moonshot-v1-8k"` {
		return fmt.Errorf("the last good version does not run any more")
	}
	return os.WriteFile(file, good, 0o600)
}

func (d *demo) farewell() {
	d.step = 0
	d.title("That was all. Three things to try")
	d.say("  the real provider    export DASHSCOPE_API_KEY=sk-…   (README.md, \"With a real key\")")
	d.say("  your own manifests   bin/sidecar check --config FOLDER")
	d.say("  what it costs        make bench")
}
