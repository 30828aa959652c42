package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"remora.dev/remora/sidecar/launch"
	"remora.dev/remora/sidecar/metrics"
	"remora.dev/remora/sidecar/snapshot"
	"remora.dev/remora/sidecar/watch"
)

// A source follows a configuration and publishes it, until ctx ends.
type source interface{ Run(ctx context.Context) }

// told is what a source publishes.
type told struct {
	store   *snapshot.Store
	members *snapshot.Members
}

// open gives the source that the command line names. Files have been read then; the API server has not been asked.
func open(a launch.Args, log logr.Logger, to told, counted *metrics.Set) (source, error) {
	var labels *watch.PodLabels
	if a.LabelsFile != "" {
		var err error
		if labels, err = watch.ReadPodLabels(a.LabelsFile, log); err != nil {
			return nil, fmt.Errorf("--labels-file %s: %w", a.LabelsFile, err)
		}
	}
	place := watch.Place{Region: a.Region, Zone: a.Zone}
	if a.Config != "" {
		files := &watch.Files{
			Path: a.Config, Labels: a.Labels, PodLabels: labels, Gateway: a.Command == launch.Gateway, Place: place,
			Log: log, Store: to.store, Members: to.members,
		}
		if err := files.Load(); err != nil {
			return nil, fmt.Errorf("--config %s: %w", a.Config, err)
		}
		return files, nil
	}
	klog.SetLogger(logr.Discard()) // what client-go says of its own accord is of no use to the user, and quotes what it got
	config, namespace, err := credentials(a.Kubeconfig)
	if err != nil {
		return nil, err
	}
	if a.Namespace != "" {
		namespace = a.Namespace
	}
	if config.BearerTokenFile != "" {
		showToken(counted, config.BearerTokenFile)
	}
	config.UserAgent = "remora-sidecar/" + version
	api := &watch.API{
		Config: config, Namespace: namespace, KeysSecret: a.Keys, Labels: a.Labels, PodLabels: labels, LastGood: a.LastGood,
		Gateway: a.Command == launch.Gateway, Place: place, Log: log, Store: to.store, Members: to.members,
	}
	if err := api.Load(); err != nil {
		return nil, err
	}
	return api, nil
}

// namespaceFile tells a pod which namespace its service account is of.
const namespaceFile = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

// credentials says how to reach the API server, and which namespace is meant where nothing else says so.
func credentials(kubeconfig string) (config *rest.Config, namespace string, err error) {
	if kubeconfig == "" {
		config, err = rest.InClusterConfig()
		if errors.Is(err, rest.ErrNotInCluster) {
			return nil, "", launch.ErrNoConfiguration
		}
		if err != nil {
			return nil, "", fmt.Errorf("the service account of the pod cannot be used: %w", err)
		}
		content, err := os.ReadFile(namespaceFile)
		if err != nil {
			return nil, "", fmt.Errorf("the namespace of the pod is not known: name it with --namespace: %w", err)
		}
		// HTTPS_PROXY leads out of the cluster, and the API server is in it.
		config.Proxy = func(*http.Request) (*url.URL, error) { return nil, nil }
		return config, strings.TrimSpace(string(content)), nil
	}
	file, err := clientcmd.LoadFromFile(kubeconfig)
	if err == nil {
		err = clientcmd.ResolveLocalPaths(file)
	}
	if err != nil {
		return nil, "", fmt.Errorf("--kubeconfig %s: %w", kubeconfig, err)
	}
	client := clientcmd.NewDefaultClientConfig(*file, nil)
	if config, err = client.ClientConfig(); err == nil {
		namespace, _, err = client.Namespace()
	}
	if err != nil {
		return nil, "", fmt.Errorf("--kubeconfig %s: %w", kubeconfig, err)
	}
	return config, namespace, nil
}
