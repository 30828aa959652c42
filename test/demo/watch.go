//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/test/stage"
)

// prices are made up, as the providers are.
const prices = `apiVersion: v1
kind: ConfigMap
metadata:
  name: remora-telemetry
  namespace: ` + system + `
data:
  telemetry.yaml: |
    prices: # of a million tokens
      currency: CNY
      models:
      - {model: qwen-turbo, input: 0.3, output: 0.6}
      - {model: "qwen-*", input: 0.2, output: 0.4}
      - {model: "moonshot-*", input: 2, output: 10}
`

// models are those that the load of this step is answered by.
var models = []string{"qwen-turbo", "qwen-1.8b-chat", "moonshot-v1-8k"}

// logged has every call of the demo's own namespace be told of, whatever an installation that was there already says of all others.
func (d *demo) logged() error {
	if d.cluster != nil {
		return nil
	}
	return d.quiet("annotate", "namespace", home, v1beta1.AccessLogAnnotation+"=all", v1beta1.AccessLogSampleAnnotation+"=1")
}

// watch shows the figures while calls run, and lines of the access log afterwards.
func (d *demo) watch() error {
	d.title("Who calls what, how fast and for how much: kubectl remora")
	began := time.Now()
	if err := stage.WritePlugin(d.ctx, ".", d.options.folder); err != nil {
		return err
	}
	folder, err := filepath.Abs(d.options.folder)
	if err != nil {
		return err
	}
	path := os.Getenv("PATH")
	for _, variable := range d.env {
		if value, ok := strings.CutPrefix(variable, "PATH="); ok {
			path = value
		}
	}
	d.env = append(d.env, "PATH="+folder+":"+path)
	d.output(fmt.Sprintf("%5.1f s  %s built, a plug-in of kubectl's", time.Since(began).Seconds(), d.file("kubectl-remora")))
	if err := d.price(); err != nil {
		return err
	}
	if err := d.top(); err != nil {
		return err
	}
	return d.tail()
}

// price says what tokens cost, where the installation is the demo's own.
func (d *demo) price() error {
	if d.cluster == nil {
		return nil
	}
	if err := os.WriteFile(d.file("6-prices.yaml"), []byte(prices), 0o600); err != nil {
		return err
	}
	if err := d.showFile("6-prices.yaml"); err != nil {
		return err
	}
	_, err := d.show("kubectl apply -f " + d.file("6-prices.yaml"))
	return err
}

// busy is an app that calls in three ways at the same time, until the file is there, and says of each call its status. Streams take longer:
// so that there are some at any time, there are more callers.
func (d *demo) busy() string {
	return `kubectl exec -i deployment/sleep -- sh <<'EOF'
rm -f /tmp/enough
call() {
  n=0
  until [ -e /tmp/enough ] || [ $((n += 1)) -gt 5000 ]; do
    curl --silent --show-error --output /dev/null --write-out '%{http_code}\n' "$@" 2>&1
    sleep 0.05
  done
}
call http://` + virtual + ` --data '{"messages": [{"role": "user", "content": "hi"}]}' &
call http://` + d.qwen + ` --data '{"messages": [{"role": "user", "content": "hello"}]}' &
for i in $(seq 6); do
  call http://` + d.qwen + ` --header 'user-type: subscriber' \
    --data '{"stream": true, "messages": [{"role": "user", "content": "hello"}]}' &
done
wait
EOF`
}

func (d *demo) top() error {
	d.say("Now the app calls without pause: %s, %s, and that one as a subscriber, streamed.", virtual, d.qwen)
	calls, failed := 0, ""
	ended := make(chan error, 1)
	go func() {
		ended <- d.lines(d.ctx, d.busy(), func(status string) {
			if calls++; status != "200" && failed == "" {
				failed = status
			}
		})
	}()
	err := d.topped()
	if stop := d.quiet("exec", "deployment/sleep", "--", "touch", "/tmp/enough"); stop != nil {
		return errors.Join(err, stop)
	}
	err = errors.Join(err, <-ended)
	if failed != "" {
		err = errors.Join(err, fmt.Errorf("one of %d calls failed: %s", calls, failed))
	}
	if err != nil {
		return err
	}
	money := ""
	if d.cluster != nil {
		money = " Cost is by the prices above, which sidecars follow while they run."
	}
	d.notice("Rates of the last two seconds, out of what each sidecar counts: of a pod or, by --by, of models, providers or namespaces. "+
		"FIRST is the time from the app's request to the first token of a stream, NOW what is under way.%s Without --once, the table is live.", money)
	d.pause()
	return nil
}

// topped shows the figures, once calls to all models are among them.
func (d *demo) topped() error {
	const byModel = "kubectl remora top --once --by model --sort cost"
	for deadline := time.Now().Add(time.Minute); ; {
		out, err := d.sh(byModel + " --interval 1s")
		if err != nil {
			return err
		}
		if d.all(out) {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("after a minute, this is all that it sees of the calls:\n%s", out)
		}
	}
	for _, command := range []string{"kubectl remora top --once", byModel} {
		d.command(command)
		out, err := d.sh(command)
		if err != nil {
			return err
		}
		for line := range strings.SplitSeq(out, "\n") { // not cut: in pieces, it would be no table
			fmt.Println("  " + line)
		}
		if command == byModel && !d.all(out) {
			return errors.New("not every model is there, with what it costs")
		}
	}
	return nil
}

// all tells whether each model has a line and, where the demo says what they cost, a cost.
func (d *demo) all(table string) bool {
	found := 0
	for line := range strings.Lines(table) {
		for _, model := range models {
			if strings.HasPrefix(line, model+" ") && (d.cluster == nil || strings.Contains(line, " CNY")) {
				found++
			}
		}
	}
	return found == len(models)
}

// line is what the demo reads of one of the access log.
type line struct {
	Model        string  `json:"request_model"`
	Tokens       int     `json:"request_completion_tokens"`
	Rule         string  `json:"rule"`
	Provider     string  `json:"provider"`
	Status       int     `json:"status"`
	Code         string  `json:"code"`
	Stream       bool    `json:"stream"`
	FirstTokenMs float64 `json:"first_token_ms"`
	TotalMs      float64 `json:"total_ms"`
	AddedMs      float64 `json:"added_ms"`
}

// tail shows three lines of the access log, with what to see in each.
func (d *demo) tail() error {
	d.say("Every call leaves a line in the sidecar's log. Three calls, the last of which is no JSON:")
	if out, err := d.show(`kubectl exec -i deployment/sleep -- sh <<'EOF'
  ask() {
    curl --silent --output /dev/null --write-out '%{http_code}\n' "$@" \
      http://` + d.qwen + `
  }
  ask --data '{"messages": [{"role": "user", "content": "hello"}]}'
  ask --header 'user-type: subscriber' \
    --data '{"stream": true, "messages": [{"role": "user", "content": "hello"}]}'
  ask --data 'hello'
EOF`); err != nil {
		return err
	} else if out != "200\n200\n400" {
		return errors.New("these are not the statuses 200, 200 and 400")
	}
	texts, lines, err := d.lastThree()
	if err != nil {
		return err
	}
	whole, streamed, refused := lines[0], lines[1], lines[2]
	d.output(texts[0])
	d.notice("An answer in one piece: request_model, which the app never named, and its tokens have the names that the mesh's own log has for them. "+
		"Of its %.2f ms, total_ms, Remora itself took %.2f: added_ms.", whole.TotalMs, whole.AddedMs)
	d.output(texts[1])
	d.notice("A streamed one, for which the header chose rule vip-route, and so %s. Its reader saw something after %.1f ms, "+
		"first_token_ms, and the end after %.0f.", streamed.Model, streamed.FirstTokenMs, streamed.TotalMs)
	d.output(texts[2])
	d.notice("Refused: code says why, %s, in the word that metrics, traces and the app's own error have for it; there is no provider, because none was asked.", refused.Code)
	d.pause()
	return nil
}

// lastThree gives the lines of the three calls, as they are and as they are read, when the node has them all.
func (d *demo) lastThree() ([]string, []line, error) {
	const command = "kubectl remora tail deployment/sleep --follow=false | tail --lines 3"
	for deadline := time.Now().Add(30 * time.Second); ; d.wait(100 * time.Millisecond) {
		out, err := d.sh(command)
		if err != nil {
			return nil, nil, err
		}
		texts := strings.Split(out, "\n")
		lines := make([]line, len(texts))
		for i, text := range texts {
			if err := json.Unmarshal([]byte(text), &lines[i]); err != nil {
				return nil, nil, fmt.Errorf("that is no line of the access log: %s (%w)", text, err)
			}
		}
		if asAsked(lines) {
			d.command(command)
			return texts, lines, nil
		}
		if d.ctx.Err() != nil {
			return nil, nil, d.ctx.Err()
		}
		if time.Now().After(deadline) {
			return nil, nil, fmt.Errorf("these are not the lines of the three calls:\n%s", out)
		}
	}
}

func asAsked(lines []line) bool {
	if len(lines) != 3 {
		return false
	}
	whole, streamed, refused := lines[0], lines[1], lines[2]
	return whole.Status == 200 && whole.Model == "qwen-1.8b-chat" && whole.Tokens > 0 && !whole.Stream && whole.AddedMs > 0 &&
		streamed.Status == 200 && streamed.Model == "qwen-turbo" && streamed.Stream && streamed.Rule == home+"/dashscope-route/vip-route" &&
		streamed.FirstTokenMs > 0 && streamed.FirstTokenMs < streamed.TotalMs &&
		refused.Status == 400 && refused.Code == string(routing.InvalidJSON) && refused.Provider == ""
}
