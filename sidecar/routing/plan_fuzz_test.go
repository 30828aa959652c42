package routing

import (
	"bytes"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// Whatever is edited into whatever, the plan comes to an end, is made of sentences that fit into warnings,
// shows no key, and has nothing to say of what stays.
func FuzzPlan(f *testing.F) {
	all := seeds(f)
	for i, seed := range all {
		f.Add(all[(i+1)%len(all)], seed, seed)
		f.Add(seed, []byte{}, all[(i+7)%len(all)])
	}
	f.Fuzz(func(t *testing.T, stays, old, edited []byte) {
		var before, after Objects
		for _, in := range []*Objects{&before, &after} {
			if _, err := in.Decode(stays, "default"); err != nil {
				return
			}
			in.Secrets = nil
		}
		if said := Plan(before, before); len(said) > 0 {
			t.Errorf("of no edit: %q", said)
		}
		_, _ = before.Decode(old, "default") // what is no object is not there
		_, _ = after.Decode(edited, "default")
		before.Secrets, after.Secrets = nil, nil
		said := Plan(before, after)
		if len(said) > maxSentences {
			t.Errorf("%d sentences", len(said))
		}
		for _, s := range said {
			if s == "" || len(s) > maxSentence || !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) {
				t.Errorf("not a sentence: %q", s)
			}
			for _, in := range []Objects{before, after} {
				for i := range in.Providers {
					key := in.Providers[i].Spec.Configs.DefaultConfig.OpenAIConfig.APIKey
					if len(key) > 12 && strings.Contains(s, key) && bytes.Count(slicesOf(stays, old, edited), []byte(key)) == 1 {
						t.Errorf("it shows a key: %q", s)
					}
				}
			}
		}
	})
}

func slicesOf(all ...[]byte) []byte { return bytes.Join(all, []byte("\n")) }
