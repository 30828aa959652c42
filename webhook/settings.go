package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/injector"
)

// formerTime is how long settings count that have been replaced: a pod that was given a sidecar by them just before is judged
// just after.
const formerTime = time.Minute

// settings follow the PodTemplate that says what is injected. Once there have been usable ones, there always are.
type settings struct {
	client     kubernetes.Interface
	namespace  string
	informer   cache.SharedIndexInformer
	registered cache.ResourceEventHandlerRegistration
	log        logr.Logger

	mu      sync.Mutex
	usable  bool              // whether there are good ones
	good    injector.Settings // the last usable ones
	former  injector.Settings // those before
	changed time.Time         // when former were replaced; zero where there are none
	fault   error             // why the PodTemplate cannot be used as it is now
}

func newSettings(config *rest.Config, namespace string, log logr.Logger) (*settings, error) {
	config = rest.CopyConfig(config)
	config.QPS = -1 // see namespaces
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("settings: %w", err)
	}
	s := &settings{client: client, namespace: namespace, log: log}
	s.informer = coreinformers.NewFilteredPodTemplateInformer(client, namespace, 0, nil, named(v1beta1.SidecarName))
	err = s.informer.SetWatchErrorHandlerWithContext(func(ctx context.Context, r *cache.Reflector, err error) {
		if !s.informer.HasSynced() { // later, what is known goes on to hold
			s.refuse(fmt.Errorf("it cannot be read: %w", err))
		}
		cache.DefaultWatchErrorHandler(ctx, r, err)
	})
	if err != nil {
		return nil, fmt.Errorf("settings: %w", err)
	}
	s.registered, err = s.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { s.take(o) },
		UpdateFunc: func(_, o any) { s.take(o) },
		DeleteFunc: func(any) { s.refuse(errMissing) },
	})
	if err != nil {
		return nil, fmt.Errorf("settings: %w", err)
	}
	return s, nil
}

var errMissing = errors.New("it does not exist: apply config/webhook/sidecar.yaml")

// NeedLeaderElection says that every replica follows it.
func (s *settings) NeedLeaderElection() bool { return false }

// Start follows the PodTemplate until ctx ends, which is no error.
func (s *settings) Start(ctx context.Context) error {
	s.informer.RunWithContext(logr.NewContext(ctx, s.log))
	return nil
}

// take makes a PodTemplate the one that holds, if it can be used.
func (s *settings) take(o any) {
	template, ok := o.(*corev1.PodTemplate)
	if !ok {
		return
	}
	parsed, faults := injector.ParseSettings(template)
	if len(faults) > 0 {
		s.refuse(faults.ToAggregate())
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = nil
	if s.usable && equality.Semantic.DeepEqual(s.good, parsed) {
		return
	}
	if s.usable {
		s.former, s.changed = s.good, time.Now()
	}
	s.usable, s.good = true, parsed
	s.log.Info("what is injected from now on", "sidecar", parsed.Sidecar.Image, "redirect", parsed.Redirect.Image)
}

// refuse keeps what there is, and tells why.
func (s *settings) refuse(fault error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fault == nil || s.fault.Error() != fault.Error() {
		s.log.Error(fault, "the PodTemplate that says what is injected cannot be used", "podTemplate", s.name(), "lastGoodOneGoesOn", s.usable)
	}
	s.fault = fault
}

func (s *settings) name() string { return s.namespace + "/" + v1beta1.SidecarName }

// current gives the settings that hold. The error is for the author of a pod.
func (s *settings) current() (injector.Settings, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.usable {
		return s.good, nil
	}
	fault := s.fault
	if fault == nil {
		fault = errors.New("it has not been read yet")
		if s.registered.HasSynced() {
			fault = errMissing
		}
	}
	return injector.Settings{}, fmt.Errorf("PodTemplate %s, which says what is injected, cannot be used: %w", s.name(), fault)
}

// recent gives the settings by which a pod may have been given its sidecar: those that hold, and those that just did.
func (s *settings) recent() []injector.Settings {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []injector.Settings
	if s.usable {
		all = append(all, s.good)
	}
	if !s.changed.IsZero() && time.Since(s.changed) < formerTime {
		all = append(all, s.former)
	}
	return all
}

// live asks the API server: another replica may know of a change already.
func (s *settings) live(ctx context.Context) (injector.Settings, error) {
	template, err := s.client.CoreV1().PodTemplates(s.namespace).Get(ctx, v1beta1.SidecarName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return s.current()
	}
	if err != nil {
		return injector.Settings{}, fmt.Errorf("PodTemplate %s cannot be read: %w", s.name(), err)
	}
	parsed, faults := injector.ParseSettings(template)
	if len(faults) > 0 {
		return s.current()
	}
	return parsed, nil
}

// ready says why nothing can be injected.
func (s *settings) ready(*http.Request) error {
	_, err := s.current()
	return err
}

// remark says what is wrong where the last good ones go on.
func (s *settings) remark() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.usable || s.fault == nil {
		return ""
	}
	return fmt.Sprintf("PodTemplate %s cannot be used, and the last one that could goes on: %v", s.name(), s.fault)
}
