package watch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/routing"
)

// savedFormat names what is in the file. It changes with the meaning of anything in it.
const savedFormat = "remora last good configuration, version 3"

// envelope is the file: a body and its digest.
type envelope struct {
	Format string          `json:"format"`
	SHA256 string          `json:"sha256"`
	Body   json.RawMessage `json:"body"`
}

// saved is a configuration as it ran: with the last good version of what has a bad edit.
type saved struct {
	Time       time.Time             `json:"time"`
	Namespace  string                `json:"namespace"`
	Gateway    bool                  `json:"gateway,omitempty"`
	Providers  []v1beta1.LLMProvider `json:"providers,omitempty"`
	Routes     []v1beta1.LLMRoute    `json:"routes,omitempty"`
	Exported   []v1beta1.LLMProvider `json:"exported,omitempty"`
	Secrets    []savedSecret         `json:"secrets,omitempty"`
	Unreadable []routing.Unreadable  `json:"unreadable,omitempty"`
	TrustedCAs string                `json:"trustedCAs,omitempty"`
	Telemetry  string                `json:"telemetry,omitempty"` // as it was written; a file without it is older
	// What the cluster and Istio have, and who the servers were.
	Others  []savedOther   `json:"others,omitempty"`
	Servers []savedServers `json:"servers,omitempty"`
	others  []*document    // Others, which are made when they are written
	// Retired are hosts that nothing named any more, as routing.Table.Retired gives them.
	Retired [][]string `json:"retired,omitempty"`
}

// savedSecret is a Secret in plain text.
type savedSecret struct {
	Name     string            `json:"name"`
	Type     string            `json:"type,omitempty"`
	Exported bool              `json:"exported,omitempty"`
	Data     map[string][]byte `json:"data"`
}

func newSaved(namespace string, all *set, retired [][]string) *saved {
	in := all.input()
	s := &saved{
		Time: time.Now().UTC().Truncate(time.Second), Namespace: namespace, Gateway: all.many, Providers: in.Providers, Routes: in.Routes,
		Unreadable: in.Unreadable, TrustedCAs: in.TrustedCAs, Retired: retired,
	}
	for _, e := range in.Exported {
		s.Exported = append(s.Exported, e.Provider)
	}
	s.others = othersOf(all)
	for _, secret := range in.Secrets {
		plain := savedSecret{Name: secret.Name, Type: secret.Type, Exported: secret.Namespace != namespace, Data: map[string][]byte{}}
		for k, v := range secret.Data {
			plain.Data[k] = []byte(v.Reveal())
		}
		s.Secrets = append(s.Secrets, plain)
	}
	return s
}

// set gives what was saved for another judgement.
func (s *saved) set(h *history, keysIn string) *set {
	all := &set{namespace: s.Namespace, many: s.Gateway, keysIn: keysIn, names: map[routing.Ref]named{}, aside: s.Unreadable, objects: len(s.Providers) + len(s.Exported) + len(s.Routes) + len(s.Unreadable)}
	at := place{file: "the last good configuration"}
	all.trust(s.TrustedCAs, at)
	for i := range s.Providers {
		p := &s.Providers[i]
		all.add(&document{ref: refOf(v1beta1.KindLLMProvider, p.Namespace, p.Name), uid: p.UID, provider: p}, at, h)
	}
	for i := range s.Exported {
		p := &s.Exported[i]
		all.add(&document{ref: refOf(v1beta1.KindLLMProvider, p.Namespace, p.Name), uid: p.UID, provider: p, exported: true}, at, h)
	}
	for i := range s.Routes {
		r := &s.Routes[i]
		all.add(&document{ref: refOf(v1beta1.KindLLMRoute, r.Namespace, r.Name), uid: r.UID, route: r}, at, h)
	}
	for i := range s.Others {
		if d, ok := s.Others[i].document(); ok {
			all.add(&d, at, h)
		}
	}
	for _, plain := range s.Secrets {
		namespace := s.Namespace
		if plain.Exported {
			namespace = v1beta1.InstallationNamespace
		}
		secret := &routing.Secret{Namespace: namespace, Name: plain.Name, Type: plain.Type, Data: map[string]routing.Key{}}
		for k, v := range plain.Data {
			secret.Data[k] = routing.NewKey(string(v))
		}
		all.add(&document{ref: refOf(secretKind, namespace, plain.Name), secret: secret, key: true, exported: plain.Exported}, at, h)
	}
	all.incomplete = !all.configured() && len(s.Retired) == 0
	return all
}

// prepare makes the folder of the file where it is missing, and refuses one where others could read or replace it.
func prepare(path string) error {
	folder := filepath.Dir(path)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	info, err := os.Stat(folder)
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o022 != 0 || !own(info) {
		return fmt.Errorf("other users may replace files in %s, and so send prompts and keys elsewhere: chmod go-w %s, or name a folder in it, which is made", folder, quote(folder))
	}
	if info, err = os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	return private(info)
}

// private refuses what others may read or write.
func private(info os.FileInfo) error {
	switch {
	case !info.Mode().IsRegular():
		return errors.New("is not a regular file: name another one, or remove it")
	case info.Mode().Perm()&0o077 != 0 || !own(info):
		return errors.New("other users may read or write it, and it is to hold keys: remove it")
	}
	return nil
}

// own tells whether nobody else is the owner, but root.
func own(info os.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && (stat.Uid == 0 || int(stat.Uid) == os.Geteuid())
}

// load reads what was saved last for the namespace.
func load(path, namespace string) (*saved, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil {
		err = private(info)
	}
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(f)
	if err != nil {
		return nil, err
	}
	var e envelope
	if err := json.Unmarshal(text, &e); err != nil {
		return nil, errors.New("it is damaged: it is not JSON") // the error could quote a key
	}
	if e.Format != savedFormat {
		return nil, fmt.Errorf("it is of another version: it is not %q", savedFormat)
	}
	if e.SHA256 != digest(e.Body) {
		return nil, errors.New("it is damaged: its digest is wrong")
	}
	s := &saved{}
	if err := json.Unmarshal(e.Body, s); err != nil {
		return nil, errors.New("it is damaged: it does not fit its version")
	}
	if s.Namespace != namespace {
		return nil, fmt.Errorf("it is of namespace %s, and this is %s", s.Namespace, namespace)
	}
	return s, nil
}

func digest(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}

// write replaces the file at once, so that a crash leaves the one or the other.
func (s *saved) write(path string) error {
	for _, d := range s.others {
		s.Others = append(s.Others, savedOtherOf(d))
	}
	s.others = nil
	body, err := json.Marshal(s)
	if err != nil {
		return err
	}
	text, err := json.Marshal(envelope{savedFormat, digest(body), body})
	if err != nil {
		return err
	}
	temporary := path + ".new" // always the same, so that a crash leaves no keys behind but these
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		_ = os.Remove(temporary)
	}
	return err
}

// keep has a configuration written, in place of one that still waits for that.
func (a *API) keep(s *saved) {
	select {
	case <-a.saves:
	default:
	}
	a.saves <- s
}

// save writes what keep gives until ctx ends, the last of it included.
func (a *API) save(ctx context.Context) {
	said := ""
	write := func(s *saved) {
		err := s.write(a.LastGood)
		if err != nil && err.Error() != said {
			a.Log.Error(err, "the last good configuration cannot be saved", "path", a.LastGood, "then", "a restart while the API server is away finds an older one, or none")
			said = err.Error()
		} else if err == nil {
			said = ""
		}
	}
	for {
		select {
		case s := <-a.saves:
			began := time.Now()
			write(s)
			rest := time.NewTimer(min(4*time.Since(began), maxRest))
			await(ctx, rest)
			rest.Stop()
			continue
		case <-ctx.Done():
		}
		select {
		case s := <-a.saves:
			write(s)
		default:
		}
		return
	}
}
