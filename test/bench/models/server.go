package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"remora.dev/remora/test/bench/modelserver"
)

// What a call says of itself to the model server: its lengths in tokens. A real one would find them out.
const (
	promptHead = "X-Bench-Prompt"
	outputHead = "X-Bench-Output"
	servedHead = "X-Bench-Served" // the number of the server, in its answers
)

// serveModels is the role of the model servers: they stream answers as slowly as the engine says.
//
//	args: COUNT
func serveModels(args []string, out io.Writer) error {
	if len(args) != 1 {
		return errors.New("models: wants their number")
	}
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	failed := make(chan error, n)
	for i := range n {
		l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.%d:0", 11+i))
		if err != nil {
			return err
		}
		fmt.Fprintln(out, l.Addr())
		m := newModel(i)
		go m.run()
		s := &http.Server{Handler: m, ReadHeaderTimeout: time.Minute}
		go func() { failed <- s.Serve(l) }()
	}
	return <-failed
}

// model is a server with an engine.
type model struct {
	number int

	mu     sync.Mutex
	engine *modelserver.Engine
	jobs   map[*modelserver.Job]chan int // told how many tokens there are
	work   chan struct{}                 // there is some
}

func newModel(number int) *model {
	return &model{number: number, engine: modelserver.New(modelserver.Common), jobs: map[*modelserver.Job]chan int{}, work: make(chan struct{}, 1)}
}

// run does the engine's steps, each as long as it takes. Where the machine is late, the next steps make up for it.
func (m *model) run() {
	for {
		<-m.work
		due := time.Now()
		for {
			m.mu.Lock()
			took, wrote := m.engine.Step()
			wrote = append([]*modelserver.Job(nil), wrote...)
			m.mu.Unlock()
			if took == 0 {
				break
			}
			due = due.Add(took)
			time.Sleep(time.Until(due)) // this is the time that the model takes: there is no event
			m.mu.Lock()
			for _, j := range wrote {
				if told := m.jobs[j]; told != nil {
					told <- j.Written() // it has room for all of them
				}
			}
			m.mu.Unlock()
		}
	}
}

func (m *model) add(j *modelserver.Job) <-chan int {
	told := make(chan int, j.Output+1)
	m.mu.Lock()
	m.engine.Add(j)
	m.jobs[j] = told
	m.mu.Unlock()
	select {
	case m.work <- struct{}{}:
	default: // it knows
	}
	return told
}

func (m *model) drop(j *modelserver.Job) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, under := m.jobs[j]; under {
		delete(m.jobs, j)
		if j.Written() < j.Output {
			m.engine.Drop(j)
		}
	}
}

// ServeHTTP answers a chat completion with a stream.
func (m *model) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var asked struct {
		Stream        bool
		StreamOptions struct {
			IncludeUsage bool `json:"include_usage"`
		} `json:"stream_options"`
	}
	body, err := io.ReadAll(r.Body)
	if err == nil {
		err = json.Unmarshal(body, &asked)
	}
	prompt, errPrompt := strconv.Atoi(r.Header.Get(promptHead))
	output, errOutput := strconv.Atoi(r.Header.Get(outputHead))
	if err := errors.Join(err, errPrompt, errOutput); err != nil || !asked.Stream {
		http.Error(w, fmt.Sprintf("not a stream with lengths: %v", err), http.StatusUnprocessableEntity)
		return
	}
	j := &modelserver.Job{Prompt: prompt, Output: output}
	told := m.add(j)
	defer m.drop(j)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set(servedHead, strconv.Itoa(m.number))
	out := http.NewResponseController(w)
	for {
		select {
		case n := <-told:
			if _, err := io.WriteString(w, chunk); err != nil {
				return
			}
			if n == output {
				if asked.StreamOptions.IncludeUsage {
					fmt.Fprintf(w, `data: {"id":"c","object":"chat.completion.chunk","created":1700000000,"model":"m","choices":[],"usage":{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}}`+"\n\n", prompt, output, prompt+output)
				}
				_, _ = io.WriteString(w, "data: [DONE]\n\n")
				_ = out.Flush()
				return
			}
			if err := out.Flush(); err != nil {
				return
			}
		case <-r.Context().Done():
			return
		}
	}
}

const chunk = `data: {"id":"c","object":"chat.completion.chunk","created":1700000000,"model":"m","choices":[{"index":0,"delta":{"content":" word"},"finish_reason":null}]}` + "\n\n"

// promptOf is a request whose prompt has about so many tokens, as the proxy estimates them too: in words, since it takes a text without any
// for data.
func promptOf(tokens int) string {
	return `{"model":"m","stream":true,"messages":[{"role":"user","content":"` + strings.Repeat("where ", tokens) + `"}]}`
}
