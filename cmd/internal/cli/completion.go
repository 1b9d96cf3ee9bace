package cli

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/ampbridge/ampbridge/cmd/internal/kube"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/policyfile"
)

const (
	// completionTimeout bounds what a shell waits for the API server.
	completionTimeout = 3 * time.Second
	// completionLimit bounds how many names the API server returns for one completion.
	completionLimit = 500
)

// registerCompletion lets the shell complete the values of a command's flags.
func registerCompletion(cmd *cobra.Command) {
	functions := map[string]func(*cobra.Command) []string{
		"namespace":                namespaces,
		"system-namespace":         clusterNamespaces,
		"service-account":          serviceAccounts,
		"sync-service-account":     systemServiceAccounts,
		"subject":                  subjects,
		"destination":              destinations,
		"adopt-workspace":          destinations,
		"alias":                    aliases,
		"account":                  accounts,
		"home":                     accounts,
		"require":                  func(*cobra.Command) []string { return []string{"all", "cluster", "aws"} },
		"color":                    func(*cobra.Command) []string { return []string{"auto", "always", "never"} },
		clientcmd.FlagContext:      func(cmd *cobra.Command) []string { return keys(kubeconfig(cmd).Contexts) },
		clientcmd.FlagClusterName:  func(cmd *cobra.Command) []string { return keys(kubeconfig(cmd).Clusters) },
		clientcmd.FlagAuthInfoName: func(cmd *cobra.Command) []string { return keys(kubeconfig(cmd).AuthInfos) },
	}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		words, complete := functions[f.Name]
		if c, is := f.Value.(*choice); is {
			words, complete = func(*cobra.Command) []string { return c.values }, true
		}
		register := func(function cobra.CompletionFunc) {
			// The error means that the flag does not exist, or has a function already.
			_ = cmd.RegisterFlagCompletionFunc(f.Name, function)
		}
		if !complete {
			// Without a function, the shell completes the names of files.
			switch placeholder, _ := pflag.UnquoteUsage(f); placeholder {
			case "FILE", "s3://BUCKET/PREFIX":
			case "DIRECTORY":
				register(cobra.FixedCompletions(nil, cobra.ShellCompDirectiveFilterDirs))
			default:
				register(cobra.NoFileCompletions)
			}
			return
		}
		register(
			func(cmd *cobra.Command, _ []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
				directive := cobra.ShellCompDirectiveNoFileComp
				if f.Name == "alias" {
					directive |= cobra.ShellCompDirectiveNoSpace
				}
				found := slices.DeleteFunc(slices.Clone(words(cmd)), func(s string) bool {
					return s == "" || !strings.HasPrefix(s, typed)
				})
				slices.Sort(found)
				return slices.Compact(found), directive
			})
	})
}

// value returns the value of a flag; empty: the command has no such flag.
func value(cmd *cobra.Command, flag string) string {
	if f := cmd.Flags().Lookup(flag); f != nil {
		return f.Value.String()
	}
	return ""
}

func keys[V any](m map[string]V) []string { return slices.Collect(maps.Keys(m)) }

// kubeconfig returns what the kubeconfig has, without a connection; empty: it cannot be
// read.
func kubeconfig(cmd *cobra.Command) *clientcmdapi.Config {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = value(cmd, clientcmd.RecommendedConfigPathFlag)
	config, err := rules.Load()
	if err != nil {
		return clientcmdapi.NewConfig()
	}
	return config
}

// inCluster calls list with a client of the cluster that the command's flags name. It
// returns nothing if the cluster cannot be read: a shell has no place for an error.
func inCluster(cmd *cobra.Command, list func(context.Context, kubernetes.Interface) []string) []string {
	if cmd.Flags().Lookup(clientcmd.FlagContext) == nil {
		return nil // the command reads no cluster
	}
	// The command's own variables are not in reach, so the flags are read again.
	var path string
	var overrides kube.Overrides
	again := pflag.NewFlagSet("", pflag.ContinueOnError)
	registerKube(again, &path, &overrides)
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if again.Lookup(f.Name) == nil {
			return
		}
		values := []string{f.Value.String()}
		if list, is := f.Value.(pflag.SliceValue); is {
			values = list.GetSlice()
		}
		for _, v := range values {
			_ = again.Set(f.Name, v) // it was parsed once
		}
	})
	cluster, err := kube.ConnectWithin(completionTimeout, path, overrides)
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
	defer cancel()
	return list(ctx, cluster.Client)
}

func clusterNamespaces(cmd *cobra.Command) []string {
	return inCluster(cmd, func(ctx context.Context, client kubernetes.Interface) (names []string) {
		list, err := client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{Limit: completionLimit})
		if err != nil {
			return nil
		}
		for i := range list.Items {
			names = append(names, list.Items[i].Name)
		}
		return names
	})
}

func clusterServiceAccounts(cmd *cobra.Command, namespace string) []policy.Subject {
	var found []policy.Subject
	inCluster(cmd, func(ctx context.Context, client kubernetes.Interface) []string {
		list, err := client.CoreV1().ServiceAccounts(namespace).List(ctx, metav1.ListOptions{Limit: completionLimit})
		if err != nil {
			return nil
		}
		for i := range list.Items {
			found = append(found, policy.Subject{Namespace: list.Items[i].Namespace, ServiceAccount: list.Items[i].Name})
		}
		return nil
	})
	return found
}

// policyOf returns the policy that --policy names. It is empty if there is none, or if it
// cannot be read.
func policyOf(cmd *cobra.Command) *policy.Policy {
	path := value(cmd, "policy")
	if path == "" || path == policyfile.Stdin {
		return &policy.Policy{}
	}
	data, err := policyfile.Read(path, nil)
	if err != nil {
		return &policy.Policy{}
	}
	p, err := policyfile.ParseDraft(path, data)
	if err != nil {
		return &policy.Policy{}
	}
	return p
}

// granted returns the service accounts that the grants of the policy file name without a *.
func granted(cmd *cobra.Command) (found []policy.Subject) {
	for _, g := range policyOf(cmd).Grants {
		for _, namespace := range g.Namespaces {
			for _, name := range g.ServiceAccounts {
				if !strings.Contains(string(namespace+name), "*") {
					found = append(found, policy.Subject{Namespace: string(namespace), ServiceAccount: string(name)})
				}
			}
		}
	}
	return found
}

// namespaces are those of the cluster and those that the grants of the policy file name.
func namespaces(cmd *cobra.Command) []string {
	names := clusterNamespaces(cmd)
	for _, s := range granted(cmd) {
		names = append(names, s.Namespace)
	}
	return names
}

// serviceAccounts are those of the namespace, in the cluster and in the policy file.
func serviceAccounts(cmd *cobra.Command) (names []string) {
	namespace := value(cmd, "namespace")
	for _, s := range append(clusterServiceAccounts(cmd, namespace), granted(cmd)...) {
		if namespace == "" || s.Namespace == namespace {
			names = append(names, s.ServiceAccount)
		}
	}
	return names
}

func systemServiceAccounts(cmd *cobra.Command) (names []string) {
	for _, s := range clusterServiceAccounts(cmd, value(cmd, "system-namespace")) {
		names = append(names, s.ServiceAccount)
	}
	return names
}

// subjects are the granted service accounts, as NAMESPACE/NAME.
func subjects(cmd *cobra.Command) (names []string) {
	for _, s := range granted(cmd) {
		names = append(names, s.Namespace+"/"+s.ServiceAccount)
	}
	for _, s := range clusterServiceAccounts(cmd, metav1.NamespaceAll) {
		if _, entitled := policyOf(cmd).Entitled(s); entitled {
			names = append(names, s.Namespace+"/"+s.ServiceAccount)
		}
	}
	return names
}

func destinations(cmd *cobra.Command) (names []string) {
	for _, d := range policyOf(cmd).Destinations {
		names = append(names, d.Name)
	}
	return names
}

func aliases(cmd *cobra.Command) (names []string) {
	for _, name := range destinations(cmd) {
		names = append(names, name+"=")
	}
	return names
}

func accounts(cmd *cobra.Command) (ids []string) {
	p := policyOf(cmd)
	for _, d := range p.Destinations {
		ids = append(ids, p.Role(d).Account)
	}
	return ids
}
