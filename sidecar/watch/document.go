package watch

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"k8s.io/apimachinery/pkg/types"
	yaml "sigs.k8s.io/yaml/goyaml.v2"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/routing"
)

// document is one object of a file. At most one of provider, route, secret, other, bad and telemetry is set: none for an
// object of a kind that is not read. It does not change once it is made.
type document struct {
	line     int
	sum      [sha256.Size]byte
	ref      routing.Ref // without a namespace where the document names none
	uid      types.UID   // of the API server: tells an edited object from another of its name; empty in files
	provider *v1beta1.LLMProvider
	route    *v1beta1.LLMRoute
	secret   *routing.Secret
	other    any // a pointer to what the cluster or Istio has: see kindOf
	bad      *routing.Unreadable
	// telemetry is the text of the ConfigMap v1beta1.Telemetry.
	telemetry *string
	key       bool // holds key material
	exported  bool // by the installation's namespace, and in the Secret of keys
}

// id names the document, which is in that namespace if it names none.
func (d *document) id(namespace string) key {
	return key{d.ref.Kind, cmp.Or(d.ref.Namespace, namespace), d.ref.Name, d.exported}
}

// ours tells whether the document is of a kind that the sidecar reads.
func (d *document) ours() bool {
	return d.provider != nil || d.route != nil || d.secret != nil || d.other != nil || d.bad != nil || d.telemetry != nil
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

// claims gives the hosts that a route decides about.
func (d *document) claims() []string {
	switch {
	case d.route != nil:
		return []string{d.route.Spec.Host}
	case d.bad != nil:
		return d.bad.Claims
	}
	return nil
}

// broken gives what is left of an object that cannot take part: its hosts.
func (d *document) broken() routing.Unreadable {
	return routing.Unreadable{Hosts: d.hosts(), Claims: d.claims()}
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
				return nil, fmt.Errorf("the document at line %d is %s", p.line, strings.ReplaceAll(err.Error(), "\n", "; "))
			}
		}
		for _, d := range docs {
			d.line, d.sum = p.line, sum
			all = append(all, d)
		}
	}
	return all, nil
}

// decode reads one document, which is several where it is a List.
func decode(text []byte) ([]document, error) {
	if trimmed := bytes.TrimSpace(text); len(trimmed) > 0 && trimmed[0] == '{' {
		var compact bytes.Buffer // JSON may be indented by tabs, YAML may not
		if json.Compact(&compact, trimmed) == nil {
			text = compact.Bytes()
		}
	}
	var in routing.Objects
	ref, err := in.Decode(text, "")
	if err == nil {
		err = single(text)
	}
	if err != nil {
		return nil, err
	}
	all := documentsOf(&in, ref, text)
	for i := range all {
		d := &all[i]
		d.telemetry = telemetryIn(d.ref, text)
		if d.ref.Name == v1beta1.Telemetry && (d.telemetry != nil || d.secret != nil) {
			d.ref.Namespace = "" // it is that of the installation, and means every namespace
		}
	}
	return all, nil
}

// documentsOf gives what has been decoded from text; ref is the object that it says it is.
func documentsOf(in *routing.Objects, ref routing.Ref, text []byte) []document {
	var all []document
	for i := range in.Providers {
		p := &in.Providers[i]
		all = append(all, document{ref: refOf(v1beta1.KindLLMProvider, p.Namespace, p.Name), provider: p, key: providerHasKey(p)})
	}
	for i := range in.Routes {
		r := &in.Routes[i]
		all = append(all, document{ref: refOf(v1beta1.KindLLMRoute, r.Namespace, r.Name), route: r})
	}
	for i := range in.Secrets {
		s := &in.Secrets[i]
		all = append(all, document{ref: refOf(secretKind, s.Namespace, s.Name), secret: s, key: len(s.Data) > 0})
	}
	all = append(all, others(in)...)
	for i := range in.Unreadable {
		all = append(all, document{ref: in.Unreadable[i].Object, bad: &in.Unreadable[i], key: looksLikeKey(text)})
	}
	if len(all) == 0 && ref.Kind != "" {
		all = append(all, document{ref: ref})
	}
	return all
}

// errMore says that a document has an end before its text has. The YAML decoder would read no further.
var errMore = errors.New("followed by something that would be ignored: separate documents by lines of ---, and save the file as UTF-8 with usual line ends")

// unread is a YAML value that is passed over.
type unread struct{}

// UnmarshalYAML reads nothing.
func (unread) UnmarshalYAML(func(any) error) error { return nil }

// single refuses text with something after the first document in it: a second JSON object, lines that are
// indented less than the first one, or a marker after a line end that only YAML takes for one.
func single(text []byte) error {
	in := yaml.NewDecoder(bytes.NewReader(text))
	if err := in.Decode(&unread{}); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if err := in.Decode(&unread{}); !errors.Is(err, io.EOF) {
		return errMore
	}
	return nil
}

func refOf(kind, namespace, name string) routing.Ref {
	return routing.Ref{Kind: kind, Namespace: namespace, Name: name}
}

var (
	onlyVariable = regexp.MustCompile(`^\$\{[^}]*\}$`)
	inlineKey    = regexp.MustCompile(`\bapiKey["']?[ \t]*:[ \t]*["']?[^\s"'$#]`)
	secretText   = regexp.MustCompile(`\bkind["']?[ \t]*:[ \t]*["']?Secret\b`)
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
func looksLikeKey(text []byte) bool { return inlineKey.Match(text) || secretText.Match(text) }
