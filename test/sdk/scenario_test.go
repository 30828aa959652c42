package sdk_test

import "strings"

const (
	qwen     = "dashscope.aliyuncs.com" // as in the article: rules for subscribers and others
	moonshot = "api.moonshot.cn"        // with a route that has no retries
	locked   = "api.locked.example.com" // whose key is wrong
	mocked   = "aimock.example.com"     // aimock, without TLS; with a route that has no retries

	qwenKey     = "sk-qwen-0123456789abcdef"
	moonshotKey = "sk-moonshot-0123456789abcdef"
	lockedKey   = "sk-not-the-one-that-is-wanted"
	mockedKey   = "sk-mock-0123456789abcdef"
)

// provided is what the configuration says of a host. A direct call has to say it by itself.
type provided struct{ base, model, key string }

var providers = map[string]provided{
	qwen:     {"https://" + qwen + "/compatible-mode/v1", "qwen-1.8b-chat", qwenKey},
	moonshot: {"https://" + moonshot + "/v1", "moonshot-v1-8k", moonshotKey},
	locked:   {"https://" + locked + "/v1", "locked-1", lockedKey},
	mocked:   {"http://" + mocked + ":" + mockPort + "/v1", "mock-1", mockedKey},
}

// scenario is something that an app does, told once for all SDKs and all ways to the provider.
type scenario struct {
	name    string
	call    string            // a key of calls, in each SDK's file
	needs   string            // what an SDK may lack beside calls
	host    string            // default qwen
	model   string            // default: the one that is configured
	prompt  string            // default "What is the weather in Paris?"
	header  map[string]string // further request headers
	fault   string            // of the provider, as text of an llmserver.Fault
	retries int               // of the SDK
	timeout int               // of the SDK, in milliseconds; default 60,000
	take    int               // for abort: leave after so many chunks

	want     []string // what the SDK sees in any case, so that two equal failures do not pass for a success
	raw      []string // what comes over the wire in any case
	ends     ending   // what the SDK makes of it; default well
	requests int      // that the provider gets; default 1
	through  int      // that it gets through the sidecar; default: as many; none or anyNumber
	leaves   bool     // the SDK leaves before the end of the answer, and the provider has to notice

	// differs says that through the sidecar status, header and error are others than directly, on purpose, and what
	// they have to mention. Chunks that came before are still the same; an SDK that fails may drop the last of them.
	differs []string
}

type ending int

const (
	well ending = iota
	badly
	either
)

const (
	none      = -1
	anyNumber = -2
)

// shouldRetry is the header x-should-retry, which not every SDK obeys; retries are those that an SDK can be told to make.
const (
	shouldRetry = "x-should-retry"
	retries     = "retries"
)

const (
	answerOfQwen = "I am qwen-1.8b-chat at dashscope.aliyuncs.com. You said: What is the weather in Paris?"
	structured   = `body={"id":"x","object":"chat.completion","created":1,"model":"qwen-1.8b-chat","choices":[{"index":0,` +
		`"finish_reason":"stop","message":{"role":"assistant","content":"{\"city\":\"Paris\"}"}}],"unknown":{"kept":[1.0]}}`
	awkward = "Gr\u00fc\u00dfe \"quoted\" \\ \u4e16\u754c \U0001f680 \u2028 </script> {\"model\":\"other\"}"
)

var scenarios = []scenario{
	{name: "chat", call: "chat", want: []string{answerOfQwen}, raw: []string{`"total_tokens":21`}},
	{name: "chat of a subscriber", call: "chat", header: map[string]string{"user-type": "subscriber"}, model: "qwen-turbo", want: []string{"I am qwen-turbo"}},
	{name: "chat at another provider", call: "chat", host: moonshot, want: []string{"I am moonshot-v1-8k at api.moonshot.cn"}},
	{name: "prompt with every kind of character", call: "chat", prompt: awkward, want: []string{"\u4e16\u754c \U0001f680", `\"other\"`}},
	{name: "prompt of 420 KB", call: "chat", prompt: strings.Repeat("one more word ", 30_000), raw: []string{`"prompt_tokens":90002`}},
	{name: "image of 300 KiB", call: "image", want: []string{answerOfQwen}},
	{name: "structured output", call: "structured", fault: structured, want: []string{`"parsed":{"city":"Paris"}`}, raw: []string{`"kept":[1.0]`}},
	{name: "tools", call: "tools", requests: 2, want: []string{`get_weather`, answerOfQwen}},
	{name: "completion", call: "completion", want: []string{"What is the weather in Paris?"}, raw: []string{"text_completion"}},
	{name: "embeddings", call: "embeddings", model: "text-embedding-v4", want: []string{"text-embedding-v4", "1.3359375"}},
	{name: "models", call: "models", requests: 2, want: []string{"moonshot-v1-8k", `"owned_by":"llmserver"`}},
	{name: "response", call: "response", want: []string{"I am qwen-1.8b-chat", "What is the weather in Paris?"}, raw: []string{"resp_"}},
	{name: "speech", call: "speech", model: "tts-1", want: []string{"AAECAwQF"}},
	{name: "transcription of an uploaded file", call: "transcription", model: "whisper-1", want: []string{"I heard 100000 bytes of"}},

	{name: "stream", call: "stream", want: []string{`" Paris?"`}, raw: []string{`"finish_reason":"stop"`}},
	{name: "stream with usage", call: "streamWithUsage", want: []string{`" Paris?"`}, raw: []string{`"usage":null`, `"total_tokens":21`}},
	{name: "stream of tool calls", call: "streamedTools", want: []string{`"get_weather"`}, raw: []string{`"tool_calls"`, `"total_tokens":`}},
	{name: "stream of a completion", call: "streamedCompletion", want: []string{" Paris?"}, raw: []string{"[DONE]"}},
	{name: "stream of a response", call: "streamedResponse", want: []string{`" Paris?"`}, raw: []string{"response.output_text.delta", "response.completed"}},
	{name: "stream whose events come in halves", call: "stream", fault: "split", want: []string{`" Paris?"`}},
	{name: "stream with usage whose events come in halves", call: "streamWithUsage", fault: "split", raw: []string{`"total_tokens":21`}},
	{name: "stream that begins with comments", call: "stream", fault: "first-token=30ms keepalive-comments", want: []string{`" Paris?"`}, raw: []string{": ping\n"}},
	{name: "stream of 2,000 words", call: "streamWithUsage", fault: "chunks=2000", want: []string{`" word2000"`}, raw: []string{`"completion_tokens":2000`}},
	{name: "stream of 2,000 words without usage", call: "stream", fault: "chunks=2000", want: []string{`" word2000"`}},

	{name: "400 of the provider", call: "chatWithoutMessages", ends: badly, want: []string{"you must provide a messages parameter"}, raw: []string{`"code":"missing_messages"`}},
	{name: "401 of the provider", call: "chat", host: locked, ends: badly, want: []string{"Incorrect API key provided"}, raw: []string{"401 {"}},
	refused("400"), refused("402"), refused("403"), refused("404"), refused("408"), refused("409"), refused("413"), refused("422"),
	refused("500"), refused("501"), refused("502"), refused("503"), refused("504"), refused("529"),
	{name: "429 that asks for a long wait", call: "chat", fault: "status=429 retry-after=60", ends: badly, raw: []string{"rate_limit_exceeded", `"60"`}},
	{name: "429 instead of a stream", call: "streamWithUsage", fault: "status=429 retry-after=60", ends: badly, raw: []string{"rate_limit_exceeded"}},
	{name: "503 that asks for a long wait", call: "chat", fault: "status=503 retry-after=60", ends: badly, raw: []string{`"60"`}},
	{
		name: "429 that the SDK tries again", call: "chat", needs: retries, host: moonshot, fault: "status=429 retry-after=1", retries: 1,
		requests: 2, ends: badly, raw: []string{"rate_limit_exceeded"},
	},
	{
		name: "429 that the sidecar tries again, and the SDK then not", call: "chat", needs: shouldRetry, fault: "status=429 retry-after=1", retries: 1,
		requests: 2, through: 3, ends: badly, raw: []string{"This is status 429", "rate_limit_exceeded"}, differs: []string{`"X-Should-Retry":"false"`},
	},
	{name: "500 that the SDK tries again", call: "chat", needs: retries, fault: "status=500", retries: 1, requests: 2, ends: badly, raw: []string{"500 {"}},
	{name: "error that is not JSON", call: "chat", fault: "status=502 body=<html>Bad Gateway</html>", ends: badly, raw: []string{"502 {", "<html>"}},

	{name: "abort while the provider is silent", call: "abort", fault: "stall-after=3", take: 2, leaves: true, want: []string{`"I"`}},
	{name: "abort while events arrive", call: "abort", fault: "chunks=2000 chunk-delay=5ms", take: 3, leaves: true, want: []string{`" word2"`}},
	{name: "abort of a response", call: "abortResponse", fault: "chunks=2000 chunk-delay=5ms", take: 6, leaves: true},
	{name: "time out before the first token", call: "chat", fault: "first-token=1h", timeout: 1500, leaves: true, ends: badly},
	{name: "time out before the first event", call: "streamWithUsage", fault: "first-token=1h", timeout: 1500, leaves: true, ends: badly},

	{name: "error within a stream", call: "stream", fault: "error-after=4", ends: badly, want: []string{`" am"`}, raw: []string{"The server had an error"}},
	{name: "error within a stream with usage", call: "streamWithUsage", fault: "error-after=4", ends: badly, want: []string{`" am"`}, raw: []string{"The server had an error"}},
	{name: "error instead of the first event", call: "streamWithUsage", fault: "error-after=0", ends: badly, raw: []string{"The server had an error"}},
	{name: "error within the stream of a response", call: "streamedResponse", fault: "error-after=6", ends: badly, raw: []string{"The server had an error"}},
	{name: "answer that is cut", call: "chat", fault: "cut-after=2", ends: badly},
	{name: "answer in chunks that is cut", call: "chat", fault: "chunked cut-after=2", ends: badly},
	{name: "stream that is cut", call: "streamWithUsage", fault: "cut-after=4", ends: badly, want: []string{`" am"`}, differs: []string{"UpstreamReset", "in the middle of its answer"}},
	{name: "stream without usage that is cut", call: "stream", fault: "cut-after=4", ends: badly, want: []string{`" am"`}, differs: []string{"UpstreamReset"}},
	{name: "stream that is cut in an event", call: "streamWithUsage", fault: "cut-after=4 mid-event", ends: badly, want: []string{`" am"`}, differs: []string{"UpstreamReset"}},
	{name: "stream of a response that is cut", call: "streamedResponse", fault: "cut-after=6", ends: badly, raw: []string{"response.output_text.delta"}, differs: []string{"UpstreamReset"}},
	{
		// Everything has come, but not the last chunk of HTTP. Node's own fetch complains; through the sidecar the SDK does
		// not look at what follows [DONE].
		name: "stream that is cut behind [DONE]", call: "streamWithUsage", fault: "cut-after=99",
		ends: either, raw: []string{`"total_tokens":21`}, differs: []string{},
	},
	{
		name: "connection that is reset instead of an answer", call: "chat", host: moonshot, fault: "reset", through: anyNumber,
		ends: badly, differs: []string{"UpstreamReset", `502 {`},
	},
	{
		name: "operation that is no inference", call: "files", through: none,
		ends: badly, raw: []string{"404 {"}, differs: []string{"OperationNotFound"},
	},
}

// refused is an error of the provider that neither side tries again.
func refused(status string) scenario {
	return scenario{
		name: status + " of the provider, as asked for", call: "chat", fault: "status=" + status, ends: badly,
		raw: []string{status + " {", "This is status " + status},
	}
}
