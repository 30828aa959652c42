//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// streamAndPass shows a streamed answer, and calls that are none of Remora's business.
func (d *demo) streamAndPass() error {
	d.title("A streamed answer comes event by event; what is not an LLM's passes untouched")
	if err := d.stream(); err != nil {
		return err
	}
	d.say("Plain HTTP to a Service that no LLMProvider names, and HTTPS of the app's own:")
	if _, err := d.show("kubectl exec deployment/sleep -- curl --silent --show-error --header 'x-of-the-App: 1' \\\n" +
		"  'http://inhouse." + abroad + "/v1/models/mine'"); err != nil {
		return err
	}
	q, err := d.received(d.providers.inhouse, "*")
	if err != nil {
		return err
	}
	headers := strings.Join(q.RawHeader, "\n")
	if q.TLS || q.Path != "/v1/models/mine" || !strings.Contains(headers, "x-of-the-App: 1") || !strings.Contains(headers, "User-Agent: curl/") ||
		len(q.RawHeader) != 4 {
		return errors.New("the request was changed")
	}
	if _, err := d.show("kubectl exec deployment/sleep -- curl --silent --show-error --insecure \\\n" +
		"  --header 'Authorization: Bearer a-key-of-the-app' 'https://" + d.moonshot + "/v1/models'"); err != nil {
		return err
	}
	if q, err = d.received(d.providers.moonshot, "*"); err != nil {
		return err
	}
	if !q.TLS || q.Header.Get("Authorization") != "Bearer a-key-of-the-app" || q.Path != "/v1/models" {
		return errors.New("the request was changed")
	}
	d.notice("Both servers got curl's own request, to the letter: no key was added, and none of the app's taken away. " +
		"(So the provider refuses that one.) Only plain HTTP to a host that the configuration names is Remora's.")
	d.pause()
	return nil
}

func (d *demo) stream() error {
	call := "kubectl exec deployment/sleep -- curl --silent --no-buffer http://" + d.qwen + " \\\n" +
		`  --data '{"stream": true, "messages": [{"role": "user", "content": "hello"}]}'`
	d.command(call)
	var begin time.Time
	events, last := 0, time.Duration(0)
	if err := d.lines(d.ctx, call, func(line string) {
		text, ok := strings.CutPrefix(line, "data: ")
		if !ok {
			return
		}
		if events++; events == 1 {
			begin = time.Now()
		}
		last = time.Since(begin)
		var chunk struct {
			Choices []struct {
				Delta        struct{ Content string }
				FinishReason string `json:"finish_reason"`
			}
		}
		if json.Unmarshal([]byte(text), &chunk) == nil && len(chunk.Choices) > 0 {
			text = fmt.Sprintf("%q", chunk.Choices[0].Delta.Content)
			if reason := chunk.Choices[0].FinishReason; reason != "" {
				text = "finish_reason: " + reason
			}
		}
		d.output(fmt.Sprintf("%+5d ms  %s", last.Milliseconds(), text))
	}); err != nil {
		return err
	}
	if events < 5 || last < time.Duration(events-2)*eventGap*3/4 {
		return fmt.Errorf("%d events in %s: they did not come one by one", events, last)
	}
	d.notice("The provider wrote one event every %d ms, and each was here at once: nothing waits for the next.", eventGap.Milliseconds())
	return nil
}
