package usage

// Report is what a provider says an answer took, in tokens. Cached are some of Input, Reasoned some of Output.
type Report struct {
	Input, Output, Cached, Reasoned int64
}

// maxTokens is more than any answer takes: a number beyond it is no report.
const maxTokens = 1 << 40

// numbers are the numbers of one usage object; -1 where there is none.
type numbers struct {
	input, output, total, cached, reasoned int64
}

var noNumbers = numbers{-1, -1, -1, -1, -1}

func (n *numbers) set(p place, v int64) {
	switch p {
	case inputTokens:
		n.input = v
	case outputTokens:
		n.output = v
	case totalTokens:
		n.total = v
	case cachedTokens:
		n.cached = v
	case reasoningTokens:
		n.reasoned = v
	default:
	}
}

// report gives what the numbers say. Some operations, such as rerank, have a total only. Zero tokens are what some providers
// write where they do not know yet.
func (n *numbers) report() (Report, bool) {
	r := Report{Input: max(n.input, 0), Output: max(n.output, 0)}
	if n.input < 0 && n.total >= 0 {
		r.Input = max(n.total-r.Output, 0)
	}
	r.Cached = min(max(n.cached, 0), r.Input)
	r.Reasoned = min(max(n.reasoned, 0), r.Output)
	return r, r.Input > 0 || r.Output > 0
}
