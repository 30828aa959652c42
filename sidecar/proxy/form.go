package proxy

import (
	"bytes"
	"io"
	"mime"
	"mime/multipart"

	"remora.dev/remora/sidecar/routing"
)

// maxModel is how long the name of a model in a form may be.
const maxModel = 256

// formModel finds the field model in a form, or in its beginning. Without one, or where it is not there as a
// whole, there is none, and rules that ask for a model do not match.
func formModel(contentType, head []byte) ([]byte, *failure) {
	kind, parameters, _ := mime.ParseMediaType(string(contentType))
	if kind != "multipart/form-data" || parameters["boundary"] == "" {
		return nil, nil // the provider says what it thinks of it
	}
	var model []byte
	form := multipart.NewReader(bytes.NewReader(head), parameters["boundary"])
	// An error is the end of the form, or of what there is of it.
	for part, err := form.NextRawPart(); err == nil; part, err = form.NextRawPart() {
		if part.FormName() != "model" || part.FileName() != "" {
			continue
		}
		if model != nil {
			return nil, fail(routing.DuplicateKey, `the form has "model" twice: send it once`)
		}
		var whole bool
		if model, whole = shortPart(part); !whole {
			return nil, nil
		}
	}
	return model, nil
}

// shortPart reads a part that may be the name of a model.
func shortPart(part io.Reader) (value []byte, whole bool) {
	value, err := io.ReadAll(io.LimitReader(part, maxModel+1))
	return value, err == nil && len(value) <= maxModel
}
