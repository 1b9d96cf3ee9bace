// Package kube has what several commands read from a cluster: the connection, what the
// chart installed, the issuer, the service accounts of labelled namespaces, and the
// status of a sidecar. Doctor, status and sync's watch read other objects
// themselves. The webhook and the auditor have narrow interfaces of their own.
package kube

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Overrides are the values of kubectl's flags. They win over those of the kubeconfig.
type Overrides = clientcmd.ConfigOverrides

// ErrNone means that no cluster is named: there is no kubeconfig, or it has no current context.
var ErrNone = errors.New(
	"no Kubernetes cluster: name a kubeconfig with --kubeconfig or $KUBECONFIG, or run in a pod with a service account",
)

// Config reads the same kubeconfig as kubectl. If there is none, it uses the
// service account of the pod that it runs in.
func Config(path string, overrides Overrides) (*rest.Config, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = path
	cfg, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &overrides).ClientConfig()
	if clientcmd.IsEmptyConfig(err) {
		if named := os.Getenv(clientcmd.RecommendedConfigPathEnvVar); path == "" && named != "" && noneExists(named) {
			return nil, fmt.Errorf("%w (KUBECONFIG is %s, which does not exist)", ErrNone, named)
		}
		return nil, ErrNone
	}
	if err != nil {
		return nil, fmt.Errorf("no Kubernetes cluster: %w", err)
	}
	return cfg, nil
}

// noneExists reports whether no file of the list exists.
func noneExists(list string) bool {
	return !slices.ContainsFunc(filepath.SplitList(list), func(path string) bool {
		_, err := os.Stat(path)
		return err == nil
	})
}
