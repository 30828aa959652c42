package proxy

import (
	"encoding/json"
	"strconv"

	"remora.dev/remora/sidecar/routing"
)

// cutEvent is a failure as the last event of a stream that it cut, such that SDKs raise it as an error. sequence is the number
// of the last event of Responses' streams, whose events are numbered.
func (f *failure) cutEvent(o *routing.Operation, sequence int64) []byte {
	body := f.body()
	if o == nil || o.Name != "responses" {
		return append(append([]byte("data: "), body...), "\n\n"...)
	}
	// Some SDKs look for OpenAI's own fields, others for the error that all of its operations have.
	message, _ := json.Marshal("Remora: " + f.message) // strings always marshal
	e := append([]byte(nil), "event: error\ndata: {\"type\":\"error\",\"sequence_number\":"...)
	e = strconv.AppendInt(e, sequence+1, 10)
	e = append(append(append(e, `,"code":"`...), f.code...), `","message":`...)
	e = append(append(e, message...), `,"param":null,`...)
	return append(append(e, body[1:]...), "\n\n"...)
}
