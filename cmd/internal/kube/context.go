package kube

import "k8s.io/client-go/tools/clientcmd"

// Context returns the name of the context that [Config] uses; empty: no kubeconfig names
// one, as in a pod.
func Context(path string, overrides Overrides) string {
	if overrides.CurrentContext != "" {
		return overrides.CurrentContext
	}
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = path
	config, err := rules.Load()
	if err != nil {
		return ""
	}
	return config.CurrentContext
}
