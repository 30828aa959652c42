package telemetry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Encode gives the JSON form, the same for the same settings.
func (s *Settings) Encode() ([]byte, error) {
	var b bytes.Buffer
	to := json.NewEncoder(&b)
	to.SetEscapeHTML(false) // it is for no browser, and would be six times as long
	if err := to.Encode(s); err != nil {
		return nil, fmt.Errorf("the settings of telemetry: %w", err)
	}
	return bytes.TrimSpace(b.Bytes()), nil
}

// Decode reads the JSON form. Fields that it does not know are passed over: the controller may be newer than a pod's sidecar. Values
// that it does not understand are an error, which tells none of them.
func Decode(text []byte) (Settings, error) {
	s := *Default()
	if err := json.Unmarshal(text, &s); err != nil {
		var kind *json.UnmarshalTypeError
		if errors.As(err, &kind) && kind.Field != "" {
			return Settings{}, fmt.Errorf("%s is a %s", kind.Field, kind.Value)
		}
		return Settings{}, errors.New("it is not the JSON of telemetry settings")
	}
	faults := s.judge()
	if c := s.Capture; c != nil {
		path := field.NewPath("capture")
		faults = append(faults, share(path.Child("sample"), c.Sample)...)
		if c.Bytes < 1 || c.Bytes > MaxCaptureBytes {
			faults = append(faults, field.Invalid(path.Child("bytes"), c.Bytes, captureBytesRemedy))
		}
	}
	if err := faults.ToAggregate(); err != nil {
		return Settings{}, err
	}
	s.Prices.index = newPriceIndex(s.Prices.Models)
	return s, nil
}

// Equal tells whether two settings say the same.
func (s *Settings) Equal(t *Settings) bool {
	a, errA := s.Encode()
	b, errB := t.Encode()
	return errA == nil && errB == nil && slices.Equal(a, b)
}
