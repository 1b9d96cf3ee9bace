package cli

import "github.com/spf13/pflag"

// registerKubeconfig adds the flag --kubeconfig.
func registerKubeconfig(flags *pflag.FlagSet, path *string) {
	flags.StringVar(path, "kubeconfig", "", "kubeconfig `FILE` (default: $KUBECONFIG, ~/.kube/config, then the pod's own service account)")
}
