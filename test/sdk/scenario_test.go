package sdk_test

import "strings"

const (
	qwen     = "dashscope.aliyuncs.com" // as in the article: rules for subscribers and others
	moonshot = "api.moonshot.cn"        // with a route that has no retries
	locked   = "api.locked.example.com" // whose key is wrong

	qwenKey     = "sk-qwen-0123456789abcdef"
	moonshotKey = "sk-moonshot-0123456789abcdef"
	lockedKey   = "sk-not-the-one-that-is-wanted"
)

// provided is what the configuration says of a host. A direct call has to say it by itself.
type provided struct{ base, model, key string }

var providers = map[string]provided{
	qwen:     {"/compatible-mode/v1", "qwen-1.8b-chat", qwenKey},
	moonshot: {"/v1", "moonshot-v1-8k", moonshotKey},
	locked:   {"/v1", "locked-1", lockedKey},
}

// scenario is something that an app does, told once for all SDKs and all ways to the provider.
type scenario struct {
	name    string
	call    string            // a key of calls, here and in node/saw.mjs
	host    string            // default qwen
	model   string            // default: the one that is configured
	prompt  string            // default "What is the weather in Paris?"
	header  map[string]string // further request headers
	fault   string            // of the provider, as text of an llmserver.Fault
	retries int               // of the SDK
	timeout int               // of the SDK, in milliseconds; default 30,000
	take    int               // for abort: leave after so many chunks

	want     []string // what is seen in any case, so that two equal failures do not pass for a success
	requests int      // that the provider gets; default 1
	through  int      // that it gets through the sidecar; default: as many; none or anyNumber
	leaves   bool     // the SDK leaves before the end of the answer, and the provider has to notice

	// differs says that through the sidecar status, header and error are others than directly, on purpose, and what
	// they have to mention. Chunks that came before are still the same.
	differs []string
}

const (
	none      = -1
	anyNumber = -2
)

const (
	answerOfQwen = "I am qwen-1.8b-chat at dashscope.aliyuncs.com. You said: What is the weather in Paris?"
	structured   = `body={"id":"x","object":"chat.completion","created":1,"model":"qwen-1.8b-chat","choices":[{"index":0,` +
		`"finish_reason":"stop","message":{"role":"assistant","content":"{\"city\":\"Paris\"}"}}],"unknown":{"kept":[1.0]}}`
	awkward = "Gr\u00fc\u00dfe \"quoted\" \\ \u4e16\u754c \U0001f680 \u2028 </script> {\"model\":\"other\"}"
)

var scenarios = []scenario{
	{name: "chat", call: "chat", want: []string{answerOfQwen, `"total_tokens":21`}},
	{name: "chat of a subscriber", call: "chat", header: map[string]string{"user-type": "subscriber"}, model: "qwen-turbo", want: []string{"I am qwen-turbo"}},
	{name: "chat at another provider", call: "chat", host: moonshot, want: []string{"I am moonshot-v1-8k at api.moonshot.cn"}},
	{name: "prompt with every kind of character", call: "chat", prompt: awkward, want: []string{"\u4e16\u754c \U0001f680", `\"other\"`}},
	{name: "prompt of 420 KB", call: "chat", prompt: strings.Repeat("one more word ", 30_000), want: []string{`"prompt_tokens":90002`}},
	{name: "structured output", call: "structured", fault: structured, want: []string{`"parsed":{"city":"Paris"}`, `"kept"`}},
	{name: "tools", call: "tools", requests: 2, want: []string{`"get_weather"`, answerOfQwen}},
	{name: "completion", call: "completion", want: []string{"text_completion", "You said: What"}},
	{name: "embeddings", call: "embeddings", model: "text-embedding-v4", want: []string{"text-embedding-v4", "1.3359375"}},
	{name: "models", call: "models", requests: 2, want: []string{"moonshot-v1-8k", `"owned_by":"llmserver"`}},
	{name: "response", call: "response", want: []string{"resp_", answerOfQwen}},
	{name: "speech", call: "speech", model: "tts-1", want: []string{"AAECAwQF"}},
	{name: "transcription of an uploaded file", call: "transcription", model: "whisper-1", want: []string{"I heard 100000 bytes of hello.wav"}},

	{name: "stream", call: "stream", want: []string{`" Paris?"`, `"finish_reason":"stop"`}},
	{name: "stream with usage", call: "streamWithUsage", want: []string{`"usage":null`, `"total_tokens":21`}},
	{name: "stream of tool calls", call: "streamedTools", want: []string{`"get_weather"`, `"tool_calls"`, `"total_tokens":`}},
	{name: "stream of a response", call: "streamedResponse", want: []string{"response.output_text.delta", "response.completed"}},
	{name: "stream whose events come in halves", call: "stream", fault: "split", want: []string{`" Paris?"`}},
	{name: "stream that begins with comments", call: "stream", fault: "first-token=30ms keepalive-comments", want: []string{`" Paris?"`}},
	{name: "stream of 2,000 words", call: "streamWithUsage", fault: "chunks=2000", want: []string{`" word2000"`, `"completion_tokens":2000`}},

	{name: "400 of the provider", call: "chatWithoutMessages", want: []string{"you must provide a messages parameter", `"code":"missing_messages"`}},
	{name: "401 of the provider", call: "chat", host: locked, want: []string{"Incorrect API key provided", `"status":401`}},
	{name: "403 of the provider", call: "chat", fault: "status=403", want: []string{`"status":403`, "This is status 403"}},
	{name: "404 of the provider", call: "chat", fault: "status=404", want: []string{`"status":404`, "This is status 404"}},
	{name: "422 of the provider", call: "chat", fault: "status=422", want: []string{`"status":422`}},
	{name: "429 that asks for a long wait", call: "chat", fault: "status=429 retry-after=60", want: []string{"rate_limit_exceeded", `"60"`}},
	{name: "429 instead of a stream", call: "stream", fault: "status=429 retry-after=60", want: []string{"rate_limit_exceeded"}},
	{name: "429 that the SDK tries again", call: "chat", host: moonshot, fault: "status=429 retry-after=1", retries: 1, requests: 2, want: []string{"rate_limit_exceeded"}},
	{
		name: "429 that the sidecar tries again, and the SDK then not", call: "chat", fault: "status=429 retry-after=1", retries: 1,
		requests: 2, through: 3, want: []string{"This is status 429", "rate_limit_exceeded"}, differs: []string{`"X-Should-Retry":"false"`},
	},
	{name: "500 of the provider", call: "chat", fault: "status=500", want: []string{`"status":500`, "This is status 500"}},
	{name: "500 that the SDK tries again", call: "chat", fault: "status=500", retries: 1, requests: 2, want: []string{`"status":500`}},
	{name: "503 of the provider", call: "chat", fault: "status=503", want: []string{`"status":503`}},
	{name: "error that is not JSON", call: "chat", fault: "status=502 body=<html>Bad Gateway</html>", want: []string{`"status":502`}},

	{name: "abort while the provider is silent", call: "abort", fault: "stall-after=3", take: 3, leaves: true, want: []string{`" am"`}},
	{name: "abort while events arrive", call: "abort", fault: "chunks=2000 chunk-delay=5ms", take: 3, leaves: true, want: []string{`" word2"`}},
	{name: "time out before the first token", call: "chat", fault: "first-token=1h", timeout: 400, leaves: true, want: []string{`"error"`}},
	{name: "time out before the first event", call: "stream", fault: "first-token=1h", timeout: 400, leaves: true, want: []string{`"error"`}},

	{name: "answer that is cut", call: "chat", fault: "cut-after=2", want: []string{`"error"`}},
	{name: "answer in chunks that is cut", call: "chat", fault: "chunked cut-after=2", want: []string{`"error"`}},
	{name: "stream that is cut", call: "stream", fault: "cut-after=4", want: []string{`" am"`, `"error"`}, differs: []string{"UpstreamReset", "in the middle of its answer"}},
	{name: "stream that is cut in an event", call: "stream", fault: "cut-after=4 mid-event", want: []string{`" am"`, `"error"`}, differs: []string{"UpstreamReset"}},
	{name: "stream of a response that is cut", call: "streamedResponse", fault: "cut-after=6", want: []string{"response.output_text.delta", `"error"`}, differs: []string{"UpstreamReset"}},
	{
		// Everything has come, but not the last chunk of HTTP. Node's own fetch complains; through the sidecar the SDK does
		// not look at what follows [DONE].
		name: "stream that is cut behind [DONE]", call: "streamWithUsage", fault: "cut-after=99",
		want: []string{`"total_tokens":21`}, differs: []string{},
	},
	{
		name: "connection that is reset instead of an answer", call: "chat", host: moonshot, fault: "reset", through: anyNumber,
		want: []string{`"error"`}, differs: []string{"UpstreamReset", `"status":502`},
	},
	{
		name: "operation that is no inference", call: "files", through: none,
		want: []string{`"status":404`}, differs: []string{"OperationNotFound"},
	},
}
