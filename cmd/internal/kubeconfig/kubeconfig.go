// Package kubeconfig finds the cluster that a command is to work with.
package kubeconfig

import (
	"errors"
	"fmt"

	"github.com/spf13/pflag"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Register adds the flag --kubeconfig.
func Register(flags *pflag.FlagSet, path *string) {
	flags.StringVar(path, "kubeconfig", "", "kubeconfig `FILE` (default: $KUBECONFIG, ~/.kube/config, then the pod's own service account)")
}

// Load looks where kubectl looks, and then, in a pod, at its service account.
func Load(path string) (*rest.Config, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = path
	cfg, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{}).ClientConfig()
	if clientcmd.IsEmptyConfig(err) {
		return nil, errors.New("no Kubernetes cluster: name a kubeconfig with --kubeconfig or $KUBECONFIG, or run in a pod with a service account")
	}
	if err != nil {
		return nil, fmt.Errorf("no Kubernetes cluster: %w", err)
	}
	return cfg, nil
}
