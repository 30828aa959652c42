package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/go-logr/logr"
	authenticationv1 "k8s.io/api/authentication/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	eventsv1 "k8s.io/api/events/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"remora.dev/remora/apis/v1beta1"
)

const controlUsage = `webhook control gives the sidecars of each namespace their access and keys, and writes the status of LLMProviders
and LLMRoutes.

  --health ADDR       /livez and /readyz (default :8081)
  --metrics ADDR      /metrics; 0 for none (default 127.0.0.1:8080)
  --namespace NAME    of the installation, where the Lease of the leader is (default: the pod's own, else remora-system)
  --kubeconfig FILE   where the API server is (default: the cluster of the pod)
  --token-life TIME   how long a token of sidecars is good, at least 1h; it is renewed at half of that (default 24h)
  --leader-elect      of several replicas only one writes, and another takes over when it ends (default true)
`

// What the controller may ask of the API server, a second: enough to judge ten thousand objects within a minute, and little
// enough that nobody else notices. What is over it waits its turn here.
const controlRate = 300

// renewTime is how long a leader tries to renew its Lease until it gives up: the manager's default. Single requests get half of it.
const renewTime = 10 * time.Second

const (
	// usualTokenLife lets sidecars outlive a controller that is away for half a day, also over a night. It is no measure of how long
	// a stolen token is good: that ends when its Secret is deleted.
	usualTokenLife = 24 * time.Hour
	// leastTokenLife leaves half an hour for a renewed token to reach the pods, which takes a kubelet a minute or two.
	leastTokenLife = time.Hour
)

// stopTime is how long what is under way may take to finish when the controller stops.
const stopTime = 10 * time.Second

// controlFlags is the command line of `webhook control`.
type controlFlags struct {
	flags
	leaderElect bool
	tokenLife   time.Duration
}

func parseControlFlags(args []string) (controlFlags, error) {
	var f controlFlags
	set := flag.NewFlagSet("webhook control", flag.ContinueOnError)
	set.BoolVar(&f.leaderElect, "leader-elect", true, "")
	set.DurationVar(&f.tokenLife, "token-life", usualTokenLife, "")
	err := f.parse(set, args, nil)
	if err == nil && f.tokenLife < leastTokenLife {
		err = fmt.Errorf("%w: --token-life %s is too short: sidecars need %s or more", errUsage, f.tokenLife, leastTokenLife)
	}
	return f, err
}

// control runs the controller until ctx ends.
func control(ctx context.Context, args []string, stderr io.Writer) error {
	f, err := parseControlFlags(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(stderr, controlUsage)
		return nil
	} else if err != nil {
		return err
	}
	config, err := restConfig(f.kubeconfig)
	if err != nil {
		return err
	}
	m, err := newController(config, f, newLog(stderr))
	if err != nil {
		return err
	}
	return m.Start(ctx)
}

// newController puts the parts of the controller and what they stand on together.
func newController(config *rest.Config, f controlFlags, log logr.Logger) (manager.Manager, error) {
	return newTimedController(config, f, usualAccessTimes(f.tokenLife), log)
}

func newTimedController(config *rest.Config, f controlFlags, times accessTimes, log logr.Logger) (manager.Manager, error) {
	config = rest.CopyConfig(config)
	config.QPS, config.Burst = controlRate, controlRate
	config.UserAgent = v1beta1.ControllerName + "/" + version
	scheme, err := controlScheme()
	if err != nil {
		return nil, err
	}
	lock, err := leaderLock(config, f.namespace)
	if err != nil {
		return nil, err
	}
	stop := stopTime
	m, err := manager.New(config, manager.Options{
		Scheme:                              scheme,
		Logger:                              log,
		Cache:                               cacheOptions(f.namespace),
		LeaderElection:                      f.leaderElect,
		LeaderElectionResourceLockInterface: lock,
		LeaderElectionReleaseOnCancel:       true,
		Metrics:                             metricsserver.Options{BindAddress: f.metrics},
		HealthProbeBindAddress:              f.health,
		LivenessEndpointName:                "/livez",
		ReadinessEndpointName:               "/readyz",
		GracefulShutdownTimeout:             &stop,
	})
	if err != nil {
		return nil, fmt.Errorf("the controller cannot be set up: %w", err)
	}
	// A replica that is not the leader is ready too: it has read everything, and can take over at once.
	synced := func(r *http.Request) error {
		ctx, cancel := context.WithTimeout(r.Context(), time.Second)
		defer cancel()
		if !m.GetCache().WaitForCacheSync(ctx) {
			return errors.New("the objects have not been read yet")
		}
		return nil
	}
	around, err := newSurroundings(config, absentTime, log.WithName("kinds"))
	if err != nil {
		return nil, fmt.Errorf("the controller cannot be set up: %w", err)
	}
	settings, err := telemetryCache(m, f.namespace)
	if err != nil {
		return nil, fmt.Errorf("the controller cannot be set up: %w", err)
	}
	keeper := newKeeper(m, settings, around, f.namespace, times, log.WithName("access"))
	status, err := addStatusWriter(m, around, keeper.full, log.WithName("status"))
	if err := errors.Join(err,
		m.Add(around),
		m.AddHealthzCheck("ping", func(*http.Request) error { return nil }),
		m.AddReadyzCheck("objects", synced),
		addExecutions(m, around, status, log.WithName("gateways")),
		addKeeper(m, keeper),
		addSkipTeller(m, log.WithName("skipped")),
	); err != nil {
		return nil, fmt.Errorf("the controller cannot be set up: %w", err)
	}
	return m, nil
}

func controlScheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(statusScheme(scheme), rbacv1.AddToScheme(scheme), authenticationv1.AddToScheme(scheme), eventsv1.AddToScheme(scheme), discoveryv1.AddToScheme(scheme)); err != nil {
		return nil, fmt.Errorf("the scheme: %w", err)
	}
	return scheme, nil
}

// leaderLock is the Lease by which replicas agree on who writes. Unlike the manager's own it sends no events about itself,
// and so needs no right to.
func leaderLock(config *rest.Config, namespace string) (resourcelock.Interface, error) {
	host, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("this replica has no name: %w", err)
	}
	identity := resourcelock.ResourceLockConfig{Identity: host + "_" + string(uuid.NewUUID())}
	lock, err := resourcelock.NewFromKubeconfig(resourcelock.LeasesResourceLock, namespace, v1beta1.ControllerName, identity, config, renewTime)
	if err != nil {
		return nil, fmt.Errorf("the Lease %s/%s: %w", namespace, v1beta1.ControllerName, err)
	}
	return lock, nil
}
