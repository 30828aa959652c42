package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Who calls whom. A proxy that fills nothing in is sent what the provider wants;
// Remora is sent what an unaware application would send and has to replace it.
const (
	providerHost  = "provider.bench.test"
	providerPath  = "/v1/chat/completions"
	providerModel = "bench-model"
	providerKey   = "sk-bench-provider"

	applicationModel = "app-model"
	applicationKey   = "sk-of-the-application"

	// promptHeader names the prompt, so that the upstream can compare what arrived
	// with what was sent; chunksHeader says how long a stream is wanted, paceHeader how many milliseconds there are
	// between its chunks.
	promptHeader = "X-Bench-Prompt"
	chunksHeader = "X-Bench-Chunks"
	paceHeader   = "X-Bench-Pace"

	// anyPrompt is answered with the model that arrived, whatever it is.
	anyPrompt = "any"
)

// largePrompt is the size of a long conversation or a pasted document. With what is around it a request
// stays just below 64 KiB, whichever the kind: buffers that double would make more of a difference than text.
const largePrompt = 62 << 10

// prompt is the `messages` member of a request, as JSON.
type prompt struct {
	name     string
	messages []byte
	decoded  []message
}

type message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

var (
	englishSentences = []string{
		"The harbour was quiet when the first boat came in, and nobody had thought of counting the crates. ",
		"\"Leave them where they are,\" said the pilot, \"until somebody signs for them.\"\n",
		"A clerk wrote the weight, the owner and the hour into a book that had seen better weather. ",
		"By noon the sums no longer agreed; by evening there were three versions of the same page.\n\n",
	}
	chineseSentences = []string{
		"清晨的港口十分安静，第一艘船靠岸时没有人想到要清点货箱。",
		"“先放在那里吧，”领航员说，“等有人签字再搬。”\n",
		"书记员把重量、货主和时间写进一本经历过风雨的账簿。",
		"到了中午数字已经对不上，傍晚时同一页竟有三个版本。\n\n",
	}
)

// text repeats sentences, numbered so that no two repetitions are alike, up to about size bytes.
func text(sentences []string, size int) string {
	var b strings.Builder
	for i := 0; b.Len() < size; i++ {
		fmt.Fprintf(&b, "%d. %s", i, sentences[i%len(sentences)])
	}
	return b.String()
}

// prompts returns every prompt of the benchmark by name. Client and upstream both
// make them, so that nothing but the proxy's work travels between the two.
func prompts() map[string]prompt {
	dialogue := []message{{"system", "Answer in one sentence."}}
	for i, size := 0, 0; size < largePrompt; i++ {
		role := "user"
		if i%2 == 1 {
			role = "assistant"
		}
		m := message{role, fmt.Sprintf("%d: %s", i, strings.TrimSpace(englishSentences[i%len(englishSentences)]))}
		dialogue = append(dialogue, m)
		size += len(m.Content) + len(`{"role":"assistant","content":""},`)
	}
	all := map[string]prompt{}
	add := func(name string, messages ...message) {
		var b bytes.Buffer
		encoder := json.NewEncoder(&b)
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(messages); err != nil {
			panic(err) // strings always encode
		}
		all[name] = prompt{name, bytes.TrimSpace(b.Bytes()), messages}
	}
	add("small", message{"user", text(englishSentences, 900)})
	add("english", message{"user", text(englishSentences, largePrompt)})
	add("messages", dialogue...)
	add("chinese", message{"user", text(chineseSentences, largePrompt)})
	add(anyPrompt, message{"user", "Which model are you?"})
	return all
}

// isWholeIn tells whether a request has all messages of the prompt. It decodes only those that a proxy has encoded
// anew, as it could have done in many ways.
func (p prompt) isWholeIn(body []byte) bool {
	if bytes.Contains(body, p.messages) {
		return body[len(body)-1] == '}'
	}
	var arrived struct{ Messages []message }
	return json.Unmarshal(body, &arrived) == nil && slices.Equal(arrived.Messages, p.decoded)
}

// body is the request as the application writes it.
func (p prompt) body(model string) []byte {
	return fmt.Appendf(nil, `{"model":%q,"messages":%s,"temperature":0.2}`, model, p.messages)
}

// streamBody is the request for a streamed answer.
func (p prompt) streamBody(model string) []byte {
	return fmt.Appendf(nil, `{"model":%q,"messages":%s,"temperature":0.2,"stream":true}`, model, p.messages)
}
