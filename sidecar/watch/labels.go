package watch

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/util/validation"
)

// maxLabels bounds the file of labels, in bytes: more than an object of Kubernetes can have.
const maxLabels = 2 << 20

// PodLabels follows the labels of a pod in a file of the downward API: lines of key="value", the value quoted as in Go.
type PodLabels struct {
	path    string
	log     logr.Logger
	current atomic.Pointer[map[string]string]
	said    string // why the file cannot be used, as it was logged last
}

// ReadPodLabels reads the file. The error says why it cannot be used; it does not name the file.
func ReadPodLabels(path string, log logr.Logger) (*PodLabels, error) {
	labels, err := readLabels(path)
	if err != nil {
		return nil, err
	}
	p := &PodLabels{path: path, log: log}
	p.current.Store(&labels)
	return p, nil
}

// run follows the file until ctx ends, and calls changed after each change. What was read last stays where the file
// cannot be used.
func (p *PodLabels) run(ctx context.Context, changed func()) {
	n := newNotifier(p.path, p.log)
	defer n.close()
	for {
		n.attach()
		if p.look() {
			changed()
		}
		if !n.wait(ctx) {
			return
		}
	}
}

// look reads the file again and tells whether the labels have changed.
func (p *PodLabels) look() bool {
	labels, err := readLabels(p.path)
	if err != nil {
		if err.Error() != p.said {
			p.log.Error(err, "the labels of the pod cannot be read", "path", p.path, "then", "those that were read before stay")
			p.said = err.Error()
		}
		return false
	}
	if p.said != "" {
		p.log.Info("the labels of the pod can be read again", "path", p.path)
		p.said = ""
	}
	if maps.Equal(labels, *p.current.Load()) {
		return false
	}
	p.current.Store(&labels)
	return true
}

func readLabels(path string) (map[string]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, reason(err)
	}
	if info.Size() > maxLabels {
		return nil, fmt.Errorf("is larger than %d MiB: name a file of the downward API with the labels of the pod", maxLabels>>20)
	}
	content, err := readAll(path)
	if err != nil {
		return nil, reason(err)
	}
	return parseLabels(string(content))
}

// parseLabels reads what the downward API writes.
func parseLabels(text string) (map[string]string, error) {
	labels := map[string]string{}
	n := 0
	for line := range strings.Lines(text) {
		n++
		if line = strings.TrimRight(line, "\r\n"); line == "" {
			continue
		}
		key, value, err := parseLabel(line)
		if _, twice := labels[key]; err == nil && twice {
			err = fmt.Errorf("label %s is given twice: keep one", key)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		labels[key] = value
	}
	return labels, nil
}

var errNoLabel = errors.New(`is not a label: write key="value", as the downward API does`)

func parseLabel(line string) (key, value string, err error) {
	key, quoted, ok := strings.Cut(line, "=")
	if !ok || !strings.HasPrefix(quoted, `"`) {
		return "", "", errNoLabel
	}
	if value, err = strconv.Unquote(quoted); err != nil {
		return "", "", errNoLabel
	}
	if why := validation.IsQualifiedName(key); len(why) > 0 {
		return "", "", fmt.Errorf("%s is not the key of a label: %s", clip(key), why[0])
	}
	if why := validation.IsValidLabelValue(value); len(why) > 0 {
		return "", "", fmt.Errorf("%s is not the value of a label: %s", clip(value), why[0])
	}
	return key, value, nil
}

// clip makes a part of a file fit for a message.
func clip(s string) string {
	const most = 80
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strconv.QuoteToASCII(s)
}
