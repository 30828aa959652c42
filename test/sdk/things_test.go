package sdk_test

import (
	"bytes"
	"context"
	"encoding/base64"
)

// What every SDK is given to do, as in node/things.mjs.

const (
	instructions       = "Answer briefly."
	weatherName        = "get_weather"
	weatherDescription = "The weather of a city"
)

var weatherParameters = map[string]any{"type": "object", "properties": map[string]any{"city": map[string]any{"type": "string"}}}

var citySchema = map[string]any{
	"type": "object", "properties": map[string]any{"city": map[string]any{"type": "string"}}, "required": []string{"city"},
	"additionalProperties": false,
}

// pictureURL holds a picture of 300 KiB, the same each time.
func pictureURL() string {
	picture := make([]byte, 300<<10)
	for i := range picture {
		picture[i] = byte(i*i + i>>7)
	}
	return "data:image/png;base64," + base64.StdEncoding.EncodeToString(picture)
}

func sound() []byte { return bytes.Repeat([]byte{7}, 100_000) }

func always() bool { return true }

// untilTaken wants as many chunks as the plan says, and then leaves.
func (s *session) untilTaken(leave context.CancelFunc) func() bool {
	return func() bool {
		if len(s.saw.Chunks) < s.Take {
			return true
		}
		s.saw.leave()
		leave()
		return false
	}
}
