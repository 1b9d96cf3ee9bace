package cli

import (
	"github.com/spf13/pflag"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/ampbridge/ampbridge/cmd/internal/kube"
)

// Flags that several commands have. The same name means the same everywhere: --namespace
// and --service-account select a subject, --system-namespace is ampbridge's own
// namespace, --policy is the file of the policy, --output is the format of a report.

// systemNamespace is where the documentation installs ampbridge.
const systemNamespace = "ampbridge-system"

func registerPolicy(flags *pflag.FlagSet, path *string) {
	flags.StringVar(path, "policy", "", "policy `FILE`; - is standard input")
}

// registerInstalledPolicy is for commands that read the policy of the installation by
// default.
func registerInstalledPolicy(flags *pflag.FlagSet, path *string) {
	flags.StringVar(path, "policy", "", "policy `FILE`; - is standard input (default: the ConfigMap of the installation)")
}

func registerNamespace(flags *pflag.FlagSet, name *string, value, usage string) {
	flags.StringVarP(name, "namespace", "n", value, usage)
}

func registerServiceAccount(flags *pflag.FlagSet, name *string, usage string) {
	flags.StringVar(name, "service-account", "", usage)
}

func registerSystemNamespace(flags *pflag.FlagSet, name *string, value string) {
	flags.StringVar(name, "system-namespace", value, "`NAMESPACE` in which ampbridge is installed")
}

// registerKube adds kubectl's flags for the connection to a cluster. --username and
// --password are left out, because Kubernetes removed basic authentication. The flag
// --namespace is not among them: it selects subjects here.
func registerKube(flags *pflag.FlagSet, path *string, overrides *kube.Overrides) {
	flags.StringVar(path, "kubeconfig", "",
		"kubeconfig `FILE` (default: $KUBECONFIG, ~/.kube/config, then the service account of the pod)")
	names := clientcmd.RecommendedConfigOverrideFlags("")
	names.AuthOverrideFlags.Username, names.AuthOverrideFlags.Password = clientcmd.FlagInfo{}, clientcmd.FlagInfo{}
	names.ContextOverrideFlags.Namespace = clientcmd.FlagInfo{}
	names.ClusterOverrideFlags.APIServer.ShortName = "s"
	names.Timeout.Description = "how long one request to the API server may take, such as 10s; 0 sets no limit"
	clientcmd.BindOverrideFlags(overrides, flags, names)
}

// renamedTo is the annotation of a flag's old name. Its value is the new name.
const renamedTo = "ampbridge.io/renamed-to"

// keepOldName lets a flag be given by its old name too. The old name is hidden in the help,
// and its use prints a message.
func keepOldName(flags *pflag.FlagSet, old, name string) {
	f := *flags.Lookup(name)
	f.Name, f.Shorthand, f.Hidden = old, "", true
	f.Annotations = map[string][]string{renamedTo: {name}}
	flags.AddFlag(&f)
}
