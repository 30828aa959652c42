package watch

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	"sigs.k8s.io/yaml"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/routing"
)

// document is one object of a file. Exactly one of provider, route, secret and bad is set, or none for an
// object of another kind. It does not change once it is made.
type document struct {
	line     int
	sum      [sha256.Size]byte
	ref      routing.Ref // without a namespace where the document names none
	provider *v1beta1.LLMProvider
	route    *v1beta1.LLMRoute
	secret   *routing.Secret
	bad      *routing.Unreadable
	key      bool // holds key material
}

// ours tells whether the document is of a kind that the sidecar reads.
func (d *document) ours() bool {
	return d.provider != nil || d.route != nil || d.secret != nil || d.bad != nil
}

// hosts gives every host that the document names.
func (d *document) hosts() []string {
	switch {
	case d.provider != nil:
		return []string{d.provider.Spec.Host}
	case d.route != nil:
		all := []string{d.route.Spec.Host}
		for i := range d.route.Spec.Rules {
			for _, b := range d.route.Spec.Rules[i].BackendRefs {
				all = append(all, b.ProviderHost)
			}
		}
		return all
	case d.bad != nil:
		return d.bad.Hosts
	}
	return nil
}

// part is the text of one document, the line that its content begins on, and how many lines are above it.
type part struct {
	text  []byte
	line  int
	above int
}

// split cuts a file at its document markers. Parts without content are left out.
func split(content []byte) []part {
	content = bytes.TrimPrefix(content, []byte("\xef\xbb\xbf"))
	var parts []part
	start, above, first, line := 0, 0, 0, 0
	end := func(at, lines int) {
		if first > 0 {
			parts = append(parts, part{content[start:at], first, above})
		}
		start, above, first = at, lines, 0
	}
	for at := 0; at < len(content); {
		line++
		next := len(content)
		if i := bytes.IndexByte(content[at:], '\n'); i >= 0 {
			next = at + i + 1
		}
		text := bytes.TrimRight(content[at:next], " \t\r\n")
		switch rest, marker := cutMarker(text, "---"); {
		case marker:
			end(at, line-1)
			text = rest
		default:
			if _, marker := cutMarker(text, "..."); marker {
				end(at, line-1)
				start, above, text = next, line, nil
			}
		}
		if text = bytes.TrimSpace(text); first == 0 && len(text) > 0 && text[0] != '#' && text[0] != '%' {
			first = line
		}
		at = next
	}
	end(len(content), line)
	return parts
}

func cutMarker(line []byte, marker string) (rest []byte, found bool) {
	rest, found = bytes.CutPrefix(line, []byte(marker))
	if !found || len(rest) > 0 && rest[0] != ' ' && rest[0] != '\t' {
		return line, false
	}
	return rest, true
}

// parse reads all documents of a file. Those that known has by their content are not read again. The
// error says why the file as a whole cannot be used.
func parse(content []byte, known map[[sha256.Size]byte][]document) ([]document, error) {
	var all []document
	for _, p := range split(content) {
		sum := sha256.Sum256(p.text)
		docs, ok := known[sum]
		if !ok {
			var err error
			if docs, err = decode(p.text); err != nil {
				// The same again, for an error that counts its lines from the top of the file.
				pad := bytes.Repeat([]byte("\n"), p.above)
				if _, err2 := decode(append(pad, p.text...)); err2 != nil {
					err = err2
				}
				return nil, fmt.Errorf("the document at line %d is %s", p.line, unquoted.ReplaceAllString(err.Error(), "$1"))
			}
		}
		for _, d := range docs {
			d.line, d.sum = p.line, sum
			all = append(all, d)
		}
	}
	return all, nil
}

// decode reads one document, which may be a List of objects.
func decode(text []byte) ([]document, error) {
	if trimmed := bytes.TrimSpace(text); len(trimmed) > 0 && trimmed[0] == '{' {
		var compact bytes.Buffer // JSON may be indented by tabs, YAML may not
		if json.Compact(&compact, trimmed) == nil {
			text = compact.Bytes()
		}
	}
	var objects routing.Objects
	ref, err := objects.Decode(text, "")
	if err != nil {
		return nil, err
	}
	if strings.HasSuffix(ref.Kind, "List") {
		return decodeList(text)
	}
	d := document{ref: ref}
	switch {
	case len(objects.Providers) == 1:
		d.provider = &objects.Providers[0]
		d.key = providerHasKey(d.provider)
	case len(objects.Routes) == 1:
		d.route = &objects.Routes[0]
	case len(objects.Secrets) == 1:
		d.secret = &objects.Secrets[0]
		d.key = len(d.secret.Data) > 0
	case len(objects.Unreadable) == 1:
		d.bad = &objects.Unreadable[0]
		d.key = looksLikeKey(text)
	}
	return []document{d}, nil
}

func decodeList(text []byte) ([]document, error) {
	converted, err := yaml.YAMLToJSON(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", routing.ErrNotAnObject, err)
	}
	var list struct {
		Items []json.RawMessage `json:"items"`
	}
	if err := json.Unmarshal(converted, &list); err != nil {
		return nil, fmt.Errorf("%w: items must be a list of objects", routing.ErrNotAnObject)
	}
	var all []document
	for _, item := range list.Items {
		docs, err := decode(item)
		if err != nil {
			return nil, err
		}
		all = append(all, docs...)
	}
	return all, nil
}

// unquoted takes out of an error of the YAML parser the one thing that it quotes, which may be a key.
var unquoted = regexp.MustCompile(`(unknown anchor) '[^']*'`)

var (
	onlyVariable = regexp.MustCompile(`^\$\{[^}]*\}$`)
	inlineKey    = regexp.MustCompile(`\bapiKey["']?[ \t]*:[ \t]*["']?[^\s"'$#]`)
	secretKind   = regexp.MustCompile(`\bkind["']?[ \t]*:[ \t]*["']?Secret\b`)
)

func providerHasKey(p *v1beta1.LLMProvider) bool {
	is := func(c *v1beta1.OpenAIConfig) bool { return c.APIKey != "" && !onlyVariable.MatchString(c.APIKey) }
	if is(&p.Spec.Configs.DefaultConfig.OpenAIConfig) {
		return true
	}
	for _, c := range p.Spec.Configs.RouteSpecificConfigs {
		if is(&c.OpenAIConfig) {
			return true
		}
	}
	return false
}

// looksLikeKey judges text that could not be read as an object.
func looksLikeKey(text []byte) bool { return inlineKey.Match(text) || secretKind.Match(text) }
