package usage

// place is where in an answer the scanner is, or what the value of a key means. Only what leads to a report or to the text
// that the model wrote has a place of its own.
type place uint8

const (
	elsewhere place = iota

	// Objects.
	wholeTop // of an answer that is one JSON object
	eventTop // of the data of an event
	envelope // an object around the usage: the response of Responses' events
	choice
	said // a delta, or a message
	part // of a content
	toolCall
	function
	item // of Responses' output
	report
	inputDetails
	outputDetails

	// Arrays.
	choices
	parts
	toolCalls
	output

	// Values.
	text
	textOrParts
	keeps // the event, choices or not
	eventType
	modelName
	inputTokens // the numbers begin here
	outputTokens
	totalTokens
	cachedTokens
	reasoningTokens
	sequenceNumber
)

func (p place) isObject() bool { return p >= wholeTop && p <= outputDetails }

func (p place) isNumber() bool { return p >= inputTokens }

// array gives the place inside an array that is the value of a key.
func (p place) array() place {
	switch p {
	case choices, parts, toolCalls, output:
		return p
	case textOrParts:
		return parts
	default:
		return elsewhere
	}
}

// element gives the place of an array's elements.
func (p place) element() place {
	switch p {
	case choices:
		return choice
	case parts:
		return part
	case toolCalls:
		return toolCall
	case output:
		return item
	default:
		return elsewhere
	}
}

// at gives what a key means at a place.
func (p place) at(key []byte) place {
	switch p {
	case eventTop:
		return eventKey(key)
	case choice:
		switch string(key) {
		case "delta", "message":
			return said
		case "text":
			return text
		case "usage": // Moonshot's
			return report
		}
	case said:
		return saidKey(key)
	case wholeTop:
		return wholeKey(key)
	case envelope:
		switch string(key) {
		case "usage":
			return report
		case "model":
			return modelName
		}
	case part:
		switch string(key) {
		case "text":
			return text
		case "thinking":
			return textOrParts
		}
	case toolCall:
		if string(key) == "function" {
			return function
		}
	case function:
		switch string(key) {
		case "name", "arguments":
			return text
		}
	case item:
		switch string(key) {
		case "content", "summary":
			return textOrParts
		case "name", "arguments":
			return text
		}
	case report:
		return reportKey(key)
	case inputDetails:
		if string(key) == "cached_tokens" {
			return cachedTokens
		}
	case outputDetails:
		if string(key) == "reasoning_tokens" {
			return reasoningTokens
		}
	default:
	}
	return elsewhere
}

func eventKey(key []byte) place {
	switch string(key) {
	case "choices":
		return choices
	case "usage":
		return report
	case "response", "x_groq":
		return envelope
	case "delta":
		return text
	case "sequence_number":
		return sequenceNumber
	case "prompt_filter_results", "error": // the former is Azure's
		return keeps
	case "type":
		return eventType
	case "model":
		return modelName
	}
	return elsewhere
}

func wholeKey(key []byte) place {
	switch string(key) {
	case "choices":
		return choices
	case "usage":
		return report
	case "output":
		return output
	case "text":
		return text
	case "model":
		return modelName
	}
	return elsewhere
}

func saidKey(key []byte) place {
	switch string(key) {
	case "content":
		return textOrParts
	case "reasoning_content", "reasoning", "refusal":
		return text
	case "tool_calls":
		return toolCalls
	case "function_call":
		return function
	}
	return elsewhere
}

func reportKey(key []byte) place {
	switch string(key) {
	case "prompt_tokens", "input_tokens":
		return inputTokens
	case "completion_tokens", "output_tokens":
		return outputTokens
	case "total_tokens":
		return totalTokens
	case "prompt_tokens_details", "input_tokens_details":
		return inputDetails
	case "completion_tokens_details", "output_tokens_details":
		return outputDetails
	case "cached_tokens", "prompt_cache_hit_tokens": // Moonshot's and DeepSeek's
		return cachedTokens
	case "reasoning_tokens":
		return reasoningTokens
	}
	return elsewhere
}
