package main

import (
	"fmt"
	"os"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"golang.org/x/term"
)

// Commands look at hundreds of pods: with client-go's default of 5 requests a second they would wait for themselves. The API server shares
// out what it can do by itself.
const (
	requestsPerSecond = 200
	requestBurst      = 400
)

func quicker(c *rest.Config) *rest.Config {
	c.QPS, c.Burst = requestsPerSecond, requestBurst
	c.UserAgent = "kubectl-remora/" + version
	return c
}

// client gives a client with the rights of whoever calls.
func (a *app) client() (kubernetes.Interface, error) {
	config, err := a.flags.ToRESTConfig()
	if err != nil {
		return nil, fmt.Errorf("the cluster is not known: %w", err)
	}
	return kubernetes.NewForConfig(config)
}

// namespace is the one of -n, or of the context.
func (a *app) namespace() (string, error) {
	namespace, _, err := a.flags.ToRawKubeConfigLoader().Namespace()
	return namespace, err
}

// explained adds to an error of the API server the right that would help.
func explained(err error, doing, right string) error {
	if apierrors.IsForbidden(err) {
		return fmt.Errorf("%s: %w: it takes the right %s, as the ClusterRole remora-viewer has it", doing, err, right)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// isTerminal tells whether somebody looks at w, with colours or without.
func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// height is how many lines the terminal has; 0: it does not say.
func height(w any) int {
	f, ok := w.(*os.File)
	if !ok {
		return 0
	}
	_, lines, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return lines
}
