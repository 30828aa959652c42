package sdk_test

// mockScenarios are those at aimock, whose answers are in node/aimock.json. Its faults come at random, hence always.
var mockScenarios = []scenario{
	atMock("chat", scenario{call: "chat", want: []string{"\u4e16\u754c \U0001f680"}, raw: []string{`"total_tokens":33`}}),
	atMock("image", scenario{call: "image", want: []string{"\u4e16\u754c \U0001f680"}}),
	atMock("structured output", scenario{call: "structured", prompt: "The city as JSON, please", want: []string{`"parsed":{"city":"Paris"}`}}),
	atMock("tools", scenario{call: "tools", requests: 2, want: []string{"get_weather", "It is 21 degrees in Paris."}}),
	atMock("stream", scenario{call: "stream", want: []string{"\u4e16\u754c \U0001f680"}, raw: []string{"[DONE]"}}),
	atMock("stream with usage", scenario{call: "streamWithUsage", want: []string{"\u4e16\u754c \U0001f680"}, raw: []string{`"total_tokens":33`, "[DONE]"}}),
	atMock("stream of tool calls", scenario{call: "streamedTools", want: []string{"get_weather"}, raw: []string{`"finish_reason":"tool_calls"`}}),
	atMock("response", scenario{call: "response", want: []string{"\u4e16\u754c \U0001f680"}, raw: []string{`"input_tokens":12`}}),
	atMock("stream of a response", scenario{call: "streamedResponse", want: []string{"\u4e16\u754c \U0001f680"}, raw: []string{"response.completed"}}),
	atMock("embeddings", scenario{call: "embeddings", model: "text-embedding-v4", want: []string{"-0.3"}}),
	atMock("503", scenario{call: "chat", prompt: "You are overloaded", ends: badly, raw: []string{"503 {", "Come back later."}}),
	atMock("429", scenario{call: "chat", prompt: "I call too often", ends: badly, raw: []string{"429 {", `"retry-after":"60"`}}),
	atMock("no such fixture", scenario{call: "chat", prompt: "?", ends: badly, raw: []string{"no_fixture_match"}}),
	atMock("abort", scenario{call: "abort", prompt: "Take your time", take: 2, leaves: true}),

	chaos("drop", scenario{call: "chat", ends: badly, raw: []string{"500 {", "chaos_drop"}}),
	chaos("drop", scenario{call: "streamWithUsage", ends: badly, raw: []string{"500 {", "chaos_drop"}}),
	chaos("malformed", scenario{call: "chat", ends: badly, raw: []string{"200 {", "{malformed"}}),
	chaos("malformed", scenario{call: "streamWithUsage", ends: either, raw: []string{"200 {", "{malformed"}}),
	chaos("ratelimit", scenario{call: "chat", ends: badly, raw: []string{"429 {"}}),
	chaos("ratelimit", scenario{call: "streamWithUsage", ends: badly, raw: []string{"429 {"}}),
	chaos("disconnect", scenario{call: "chat", ends: badly, through: anyNumber, differs: []string{"UpstreamReset", "502 {"}}),
	chaos("disconnect", scenario{call: "streamWithUsage", ends: badly, through: anyNumber, differs: []string{"UpstreamReset", "502 {"}}),
	atMock("late answer", scenario{call: "chat", header: map[string]string{"X-Aimock-Chaos-Latency": "100"}, want: []string{"\u4e16\u754c \U0001f680"}}),
	atMock("stream that is cut", scenario{
		call: "streamWithUsage", prompt: "Please truncate this", ends: badly, want: []string{"These word"}, differs: []string{"UpstreamReset"},
	}),
	atMock("stream of a response that is cut", scenario{
		call: "streamedResponse", prompt: "Please truncate this", ends: badly, raw: []string{"response.created"}, differs: []string{"UpstreamReset"},
	}),
}

func atMock(name string, s scenario) scenario {
	s.name, s.host = "aimock: "+name, mocked
	return s
}

// chaos has aimock do one of its mischiefs.
func chaos(which string, s scenario) scenario {
	s.header = map[string]string{"X-Aimock-Chaos-" + which: "1"}
	return atMock(which+" of a "+s.call, s)
}
