package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"remora.dev/remora/apis/v1beta1"
)

const serveUsage = `webhook serve judges LLMProviders and LLMRoutes when they are written, warns of what Remora makes of Istio's objects, and gives
pods their sidecars when they are created.

  --listen ADDR       where the API server asks, by HTTPS (default :9443)
  --health ADDR       /livez, and /readyz with the reasons why not (default :8081)
  --metrics ADDR      /metrics; 0 for none (default 127.0.0.1:8080)
  --namespace NAME    of the installation (default: the pod's own, else remora-system)
  --kubeconfig FILE   where the API server is (default: the cluster of the pod)

On SIGTERM it is not ready from then on, and answers for a few more seconds those who do not know that yet.
`

// Where the API server asks: the paths that controller-runtime gives to validators of the two kinds.
const (
	providerPath = "/validate-istio-alibabacloud-com-v1beta1-llmprovider"
	routePath    = "/validate-istio-alibabacloud-com-v1beta1-llmroute"
)

// How the end goes. Kubernetes kills after 30 seconds.
const (
	noticeTime = 4 * time.Second  // until every API server has learnt that this replica is not ready
	drainTime  = 20 * time.Second // for what is under way then; an API server waits for 5
)

// serveFlags is the command line of `webhook serve`.
type serveFlags struct {
	flags
	listen string
}

func parseServeFlags(args []string) (serveFlags, error) {
	var f serveFlags
	set := flag.NewFlagSet("webhook serve", flag.ContinueOnError)
	set.StringVar(&f.listen, "listen", ":9443", "")
	err := f.parse(set, args, map[string]*string{"listen": &f.listen})
	return f, err
}

// ownNamespace gives the namespace of the pod that this runs in, or else where an installation usually is.
func ownNamespace() string {
	name, err := os.ReadFile("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
	if err != nil || len(name) == 0 {
		return v1beta1.InstallationNamespace
	}
	return strings.TrimSpace(string(name))
}

// serve runs the admission webhook until ctx ends.
func serve(ctx context.Context, args []string, stderr io.Writer) error {
	f, err := parseServeFlags(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(stderr, serveUsage)
		return nil
	} else if err != nil {
		return err
	}
	config, err := restConfig(f.kubeconfig)
	if err != nil {
		return err
	}
	log := newLog(stderr)
	s, err := newServer(config, f, log)
	if err != nil {
		return err
	}
	return s.run(ctx)
}

func restConfig(kubeconfig string) (config *rest.Config, err error) {
	if kubeconfig == "" {
		config, err = rest.InClusterConfig()
	} else {
		config, err = clientcmd.BuildConfigFromFlags("", kubeconfig)
	}
	if err != nil {
		return nil, fmt.Errorf("no API server is known: give --kubeconfig, or run in a pod: %w", err)
	}
	config.UserAgent = v1beta1.WebhookName + "/" + version
	return config, nil
}

// server is the admission webhook and what it stands on.
type server struct {
	manager     manager.Manager
	definitions *definitions
	ready       *readiness
	log         logr.Logger
}

func newServer(config *rest.Config, f serveFlags, log logr.Logger) (*server, error) {
	certificates := newCertificates(config, f.namespace, log.WithName("certificates"))
	namespaces, err := newNamespaces(config, log.WithName("namespaces"))
	if err != nil {
		return nil, fmt.Errorf("the webhook cannot be set up: %w", err)
	}
	settings, err := newSettings(config, f.namespace, log.WithName("settings"))
	if err != nil {
		return nil, fmt.Errorf("the webhook cannot be set up: %w", err)
	}
	pods, err := newPods(namespaces, settings)
	if err != nil {
		return nil, fmt.Errorf("the webhook cannot be set up: %w", err)
	}
	host, port, _ := net.SplitHostPort(f.listen) // parsed before
	portNumber, _ := strconv.Atoi(port)
	drain := drainTime
	m, err := manager.New(config, manager.Options{
		Scheme:         runtime.NewScheme(),
		MapperProvider: knownResources,
		Logger:         log,
		Cache:          cache.Options{ByObject: map[client.Object]cache.ByObject{providers(): {Transform: toObject}, routes(): {Transform: toObject}}},
		Metrics:        metricsserver.Options{BindAddress: f.metrics},
		WebhookServer: webhook.NewServer(webhook.Options{Host: host, Port: portNumber, TLSOpts: []func(*tls.Config){
			func(c *tls.Config) { c.GetCertificate, c.MinVersion = certificates.GetCertificate, tls.VersionTLS12 },
		}}),
		HealthProbeBindAddress:  "0", // ours gives the reasons
		GracefulShutdownTimeout: &drain,
	})
	if err != nil {
		return nil, fmt.Errorf("the webhook cannot be set up: %w", err)
	}
	objects, err := newStore(m.GetCache())
	if err != nil {
		return nil, fmt.Errorf("the webhook cannot be set up: %w", err)
	}
	around, err := newSurroundings(config, absentTime, log.WithName("kinds"))
	if err != nil {
		return nil, fmt.Errorf("the webhook cannot be set up: %w", err)
	}
	denied, err := deniedCounter()
	if err != nil {
		return nil, fmt.Errorf("the webhook cannot be set up: %w", err)
	}
	rights, err := newPermits(config)
	if err != nil {
		return nil, fmt.Errorf("the webhook cannot be set up: %w", err)
	}
	s := &server{manager: m, log: log, definitions: newDefinitions(m.GetAPIReader())}
	hook := m.GetWebhookServer()
	judge := newLanes(&admission.Webhook{Handler: &resources{namespace: objects.namespace, around: around, users: objects.users, permits: rights, denied: denied}})
	s.ready = &readiness{log: log, checks: []check{
		{"CustomResourceDefinitions", s.definitions.ready},
		{"objects", func(*http.Request) error { return objects.synced() }},
		{"namespaces", namespaces.ready},
		{"settings", settings.ready},
		{"listener", hook.StartedChecker()},
		{"certificates", certificates.Ready},
	}, remark: settings.remark}
	for _, path := range []string{providerPath, routePath} {
		hook.Register(path, s.ready.parting(judge))
	}
	warner := &istioWarner{around: around, namespace: objects.namespace, all: objects.all, gateways: namespaces.gateways, turn: make(chan struct{}, 1)}
	hook.Register(telemetryPath, s.ready.parting(newLanes(&admission.Webhook{Handler: &telemetryJudge{now: time.Now, denied: denied}})))
	hook.Register(istioPath, s.ready.parting(newLanes(&admission.Webhook{Handler: warner})))
	aboutPods := s.ready.parting(pods.handler())
	hook.Register(injectPath, aboutPods)
	hook.Register(judgePodPath, aboutPods)
	health := &manager.Server{Name: "health", ShutdownTimeout: &drain, Server: &http.Server{
		Addr: f.health, Handler: s.ready.handler(), ReadHeaderTimeout: 10 * time.Second,
	}}
	if err := errors.Join(m.Add(health), m.Add(certificates), m.Add(namespaces), m.Add(settings), m.Add(around)); err != nil {
		return nil, fmt.Errorf("the webhook cannot be set up: %w", err)
	}
	return s, nil
}

// run serves until ctx ends, and then until those who ask have learnt that it does.
func (s *server) run(ctx context.Context) error {
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	go s.definitions.watch(serving)
	farewell := context.AfterFunc(ctx, func() {
		s.ready.drain()
		s.log.Info("stopping: what is under way may finish", "listening for", noticeTime.String())
		time.AfterFunc(noticeTime, stop)
	})
	defer farewell()
	return s.manager.Start(serving)
}
