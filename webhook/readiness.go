package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/healthz"

	"remora.dev/remora/apis/v1beta1"
)

// readiness tells whether the API server's questions can be answered, and if not, why: in the body of /readyz and, each
// time that changes, in the log.
type readiness struct {
	checks []check
	remark func() string // what is wrong and does not matter to readiness; may be nil, and empty
	log    logr.Logger

	mu       sync.Mutex
	draining bool
	asked    bool
	said     string
}

type check struct {
	name string
	ask  healthz.Checker
}

func (r *readiness) drain() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.draining = true
}

// parting closes a connection after its answer once this replica is stopping: an API server keeps connections, and a question
// that it asks on one just when it is closed would fail, and not be asked again.
func (r *readiness) parting(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		draining := r.draining
		r.mu.Unlock()
		if draining {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, req)
	})
}

// reasons is empty where it is ready.
func (r *readiness) reasons(req *http.Request) string {
	r.mu.Lock()
	draining := r.draining
	r.mu.Unlock()
	if draining {
		return "it is stopping"
	}
	var all []string
	for _, c := range r.checks {
		if err := c.ask(req); err != nil {
			all = append(all, c.name+": "+err.Error())
		}
	}
	return strings.Join(all, "\n")
}

func (r *readiness) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, req *http.Request) {
		reasons := r.reasons(req)
		r.tell(reasons)
		if reasons == "" {
			fmt.Fprintln(w, "ok")
			if r.remark != nil && r.remark() != "" {
				fmt.Fprintln(w, r.remark())
			}
			return
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, reasons+"\n") // whoever asked is gone
	})
	return mux
}

func (r *readiness) tell(reasons string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.asked && r.said == reasons {
		return
	}
	r.asked, r.said = true, reasons
	if reasons == "" {
		r.log.Info("ready")
	} else {
		r.log.Info("not ready", "reasons", strings.Split(reasons, "\n"))
	}
}

// How often the CustomResourceDefinitions are looked at, before and after they were found to be ours.
const (
	lookOften  = 2 * time.Second
	lookSeldom = time.Minute
	lookTime   = 10 * time.Second // for one look
)

// definitions watches over the CustomResourceDefinitions of the two kinds. Another product has kinds of the same names: what
// they let in, and what becomes of their objects, is not for this webhook to decide.
type definitions struct {
	reader client.Reader

	mu  sync.Mutex
	err error
}

func newDefinitions(reader client.Reader) *definitions {
	return &definitions{reader: reader, err: errors.New("they have not been looked at yet")}
}

func (i *definitions) ready(*http.Request) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.err
}

// watch looks at the definitions until ctx ends.
func (i *definitions) watch(ctx context.Context) {
	for {
		known, err := i.look(ctx)
		i.mu.Lock()
		if known || i.err != nil { // that they cannot be asked for does not change what they were
			i.err = err
		}
		wait := lookSeldom
		if i.err != nil {
			wait = lookOften
		}
		i.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// look says what is wrong with the definitions; known is false where the API server did not say.
func (i *definitions) look(ctx context.Context) (known bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	var wrong []error
	for _, resource := range []schema.GroupVersionResource{providerResource, routeResource} {
		name := resource.GroupResource().String()
		crd := &metav1.PartialObjectMetadata{}
		crd.SetGroupVersionKind(crdKind)
		switch err := i.reader.Get(ctx, client.ObjectKey{Name: name}, crd); {
		case apierrors.IsNotFound(err):
			wrong = append(wrong, fmt.Errorf("%s does not exist: apply config/crd", name))
		case err != nil:
			return false, fmt.Errorf("they cannot be read: %w", err)
		case crd.Labels[v1beta1.PartOfLabel] != v1beta1.PartOf:
			wrong = append(wrong, fmt.Errorf("%s is not of this installation (it has no label %s: %s), but of another product, such as Alibaba Cloud Service Mesh: "+
				"one cluster cannot have both; remove the other one, or do not install Remora here", name, v1beta1.PartOfLabel, v1beta1.PartOf))
		}
	}
	return true, errors.Join(wrong...)
}
