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

func registerSystemNamespace(flags *pflag.FlagSet, name *string, value string) {
	flags.StringVar(name, "system-namespace", value, "`NAMESPACE` in which ampbridge is installed")
}

// KubernetesHeading is the heading of the flags for the connection to a cluster.
const KubernetesHeading = "Flags for the connection to the cluster, as of kubectl"

// registerKube adds kubectl's flags for the connection to a cluster. --username and
// --password are left out, because Kubernetes removed basic authentication. The flag
// --namespace is not among them: it selects subjects here.
func registerKube(flags *pflag.FlagSet, path *string, overrides *kube.Overrides) {
	grouped(flags, KubernetesHeading, func(flags *pflag.FlagSet) {
		flags.StringVar(path, "kubeconfig", "",
			"kubeconfig `FILE` (default: $KUBECONFIG, ~/.kube/config, then the service account of the pod)")
		names := clientcmd.RecommendedConfigOverrideFlags("")
		names.AuthOverrideFlags.Username, names.AuthOverrideFlags.Password = clientcmd.FlagInfo{}, clientcmd.FlagInfo{}
		names.ContextOverrideFlags.Namespace = clientcmd.FlagInfo{}
		names.ClusterOverrideFlags.APIServer.ShortName = "s"
		clientcmd.BindOverrideFlags(overrides, flags, names)
		for name, usage := range map[string]string{
			clientcmd.FlagContext:            "`NAME` of the kubeconfig's context",
			clientcmd.FlagClusterName:        "`NAME` of the kubeconfig's cluster",
			clientcmd.FlagAuthInfoName:       "`NAME` of the kubeconfig's user",
			clientcmd.FlagAPIServer:          "`URL` of the API server",
			clientcmd.FlagTLSServerName:      "`NAME` that the API server's certificate must have, if it is not the host's",
			clientcmd.FlagInsecure:           "accept any certificate of the API server: insecure",
			clientcmd.FlagCAFile:             "`FILE` with the CA of the API server's certificate",
			clientcmd.FlagProxyURL:           "`URL` of a proxy to the API server",
			clientcmd.FlagDisableCompression: "ask the API server for uncompressed answers",
			clientcmd.FlagCertFile:           "`FILE` with the client certificate",
			clientcmd.FlagKeyFile:            "`FILE` with the key of the client certificate",
			clientcmd.FlagBearerToken:        "bearer `TOKEN` for the API server",
			clientcmd.FlagImpersonate:        "act as this `USER`, such as system:serviceaccount:monitoring:prometheus",
			clientcmd.FlagImpersonateUID:     "act with this `UID`",
			clientcmd.FlagImpersonateGroup:   "act as a member of this `GROUP`; may be repeated",
			clientcmd.FlagTimeout:            "`TIME` that one request to the API server may take, such as 10s; 0 is no limit",
		} {
			flags.Lookup(name).Usage = usage
		}
	})
}

// renamedTo is the annotation of a flag's old name. Its value is the new name.
const renamedTo = "ampbridge.io/renamed-to"

// keepOldName lets --system-namespace be given by an old name too. The old name is hidden in
// the help, and its use prints a message.
func keepOldName(flags *pflag.FlagSet, old string) {
	const name = "system-namespace"
	f := *flags.Lookup(name)
	f.Name, f.Shorthand, f.Hidden = old, "", true
	f.Annotations = map[string][]string{renamedTo: {name}}
	flags.AddFlag(&f)
}
