// Package inject is the command `ampbridge inject`: what the webhook would make
// of objects, without a cluster. It takes the very decisions that the webhook
// takes, and applies the operations to the text: fields that this build does not
// know stay.
package inject

import (
	"fmt"
	"io"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ampbridge/ampbridge/cmd/internal/policyfile"
	"github.com/ampbridge/ampbridge/cmd/internal/usage"
	"github.com/ampbridge/ampbridge/cmd/internal/version"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/webhook/inject"
)

// Output formats.
const (
	YAML  = "yaml"
	JSON  = "json"
	Patch = "patch"
)

// Options are the command's flags.
type Options struct {
	File           string
	Policy         string
	ServiceAccount string
	Namespace      string
	NamespaceLabel string
	Image          string
	Output         string
}

func (o *Options) register(flags *pflag.FlagSet) {
	flags.StringVarP(&o.File, "file", "f", "", "`FILE` with a Pod or ServiceAccount, several documents or a List of them, YAML or JSON; - is standard input")
	flags.StringVar(&o.Policy, "policy", "", "the policy `FILE`")
	flags.StringVar(&o.ServiceAccount, "service-account", "", "`FILE` with the pods' ServiceAccount, where --file has none: its annotations count")
	flags.StringVarP(&o.Namespace, "namespace", "n", "default", "`NAMESPACE` of objects that name none")
	flags.StringVar(&o.NamespaceLabel, "namespace-label", string(policy.InjectionEnabled), "`VALUE` of the namespace's label ampbridge.io/injection: enabled, annotated, or empty for none")
	flags.StringVar(&o.Image, "image", version.Image(), "`IMAGE` of the config sidecar, for policies that name none")
	flags.StringVarP(&o.Output, "output", "o", YAML, "output `FORMAT`: yaml, json, or patch for the JSON patch of the one object")
}

func (o *Options) validate() error {
	switch {
	case o.File == "":
		return usage.Errorf("no object: name its file with -f")
	case o.Policy == "":
		return usage.Errorf("no policy: name its file with --policy")
	}
	stdin := 0
	for _, path := range []string{o.File, o.Policy, o.ServiceAccount} {
		if path == policyfile.Stdin {
			stdin++
		}
	}
	if stdin > 1 {
		return usage.Errorf("only one of -f, --policy and --service-account can be standard input")
	}
	if err := usage.OneOf("namespace-label", o.NamespaceLabel, string(policy.InjectionEnabled), string(policy.InjectionAnnotated), ""); err != nil {
		return err
	}
	return usage.OneOf("output", o.Output, YAML, JSON, Patch)
}

// New is the command.
func New() *cobra.Command {
	var o Options
	cmd := &cobra.Command{
		Use:   "inject -f FILE --policy FILE",
		Short: "Show what the webhook would make of a pod or service account",
		Long: `Inject prints pods and service accounts as the webhook would make them, without a
cluster; everything else passes through as it is. The decision about each, and its
reason, go to stderr. An object that is skipped is printed unchanged, with status 0.

The limits and quotas of the namespace are not known here: in the cluster they
bound the sidecar's resources.`,
		Example: `  ampbridge inject -f pod.yaml --policy policy.yaml
  kubectl get pod -n monitoring prometheus-k8s-0 -o json | ampbridge inject -f - --policy policy.yaml -o patch

  # With the service account, whose annotations count.
  ampbridge inject -f pod.yaml --service-account sa.yaml --policy policy.yaml --namespace-label annotated`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.validate(); err != nil {
				return err
			}
			return Run(o, cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	o.register(cmd.Flags())
	return cmd
}

// Run prints the objects on stdout and the decisions on stderr.
func Run(o Options, stdin io.Reader, stdout, stderr io.Writer) error {
	p, err := policyfile.Load(o.Policy, stdin)
	if err != nil {
		return err
	}
	documents, err := read(o.File, stdin)
	if err != nil {
		return err
	}
	r := run{Options: o, policy: p, accounts: map[policy.Subject]inject.ServiceAccount{}}
	if err := r.learn(documents, stdin); err != nil {
		return err
	}
	decided := 0
	for i := range documents {
		err := documents[i].each(func(object []byte, kind string) ([]inject.Operation, error) {
			var decision policy.Decision
			var operations []inject.Operation
			var subject policy.Subject
			var err error
			switch kind {
			case "Pod":
				operations, decision, subject, err = r.pod(object)
			case "ServiceAccount":
				operations, decision, subject, err = r.serviceAccount(object)
			default:
				return nil, nil
			}
			if err != nil {
				return nil, err
			}
			decided++
			_, err = fmt.Fprintln(stderr, describe(kind, subject, decision, operations))
			return operations, err
		})
		if err != nil {
			return fmt.Errorf("%s: %w", o.File, err)
		}
	}
	if decided == 0 {
		return fmt.Errorf("%s: neither a Pod nor a ServiceAccount is in it; of a Deployment or StatefulSet give the pod that it makes", o.File)
	}
	if o.Output == Patch && decided > 1 {
		return usage.Errorf("-o patch is for one object, and %s has %d: write -o yaml or -o json", o.File, decided)
	}
	return write(stdout, documents, o.Output)
}

// run is what the decisions depend on.
type run struct {
	Options
	policy   *policy.Policy
	accounts map[policy.Subject]inject.ServiceAccount
}

// learn gathers the service accounts: those beside the pods, and the one of
// --service-account.
func (r *run) learn(documents []document, stdin io.Reader) error {
	if r.ServiceAccount != "" {
		more, err := read(r.ServiceAccount, stdin)
		if err != nil {
			return err
		}
		documents = append(documents[:len(documents):len(documents)], more...)
	}
	for i := range documents {
		err := documents[i].each(func(object []byte, kind string) ([]inject.Operation, error) {
			if kind != "ServiceAccount" {
				return nil, nil
			}
			account, err := r.account(object)
			r.accounts[subjectOf(account.Metadata)] = account
			return nil, err
		})
		if err != nil {
			return err
		}
	}
	if r.ServiceAccount != "" && len(r.accounts) == 0 {
		return fmt.Errorf("%s: no ServiceAccount is in it", r.ServiceAccount)
	}
	return nil
}

func subjectOf(m inject.Metadata) policy.Subject {
	return policy.Subject{Namespace: m.Namespace, ServiceAccount: m.Name}
}

func (r *run) account(object []byte) (account inject.ServiceAccount, err error) {
	if err := json.Unmarshal(object, &account); err != nil {
		return account, fmt.Errorf("not a ServiceAccount: %w", err)
	}
	if account.Metadata.Namespace == "" {
		account.Metadata.Namespace = r.Namespace
	}
	return account, nil
}

func (r *run) serviceAccount(object []byte) ([]inject.Operation, policy.Decision, policy.Subject, error) {
	account, err := r.account(object)
	if err != nil {
		return nil, policy.Decision{}, policy.Subject{}, err
	}
	operations, decision := inject.Annotate(&account, policy.Injection(r.NamespaceLabel), r.policy)
	return operations, decision, subjectOf(account.Metadata), nil
}

func (r *run) pod(object []byte) ([]inject.Operation, policy.Decision, policy.Subject, error) {
	var pod inject.Pod
	if err := json.Unmarshal(object, &pod); err != nil {
		return nil, policy.Decision{}, policy.Subject{}, fmt.Errorf("not a Pod: %w", err)
	}
	subject := policy.Subject{Namespace: pod.Metadata.Namespace, ServiceAccount: pod.Spec.ServiceAccountName}
	if subject.Namespace == "" {
		subject.Namespace = r.Namespace
	}
	if subject.ServiceAccount == "" {
		subject.ServiceAccount = "default" // as the API server does
	}
	account, known := r.accounts[subject]
	if r.ServiceAccount != "" && !known {
		return nil, policy.Decision{}, subject, fmt.Errorf("the pod runs as %s, which is not the service account of %s", subject, r.ServiceAccount)
	}
	_, prometheus := inject.Prometheus(&pod)
	decision := r.policy.Decide(policy.Request{
		Namespace: subject.Namespace, Injection: policy.Injection(r.NamespaceLabel), ServiceAccount: subject.ServiceAccount,
		Prometheus: prometheus, Resembles: inject.Resembles(&pod),
		PodAnnotations: pod.Metadata.Annotations, ServiceAccountAnnotations: account.Metadata.Annotations,
	})
	if !decision.Inject {
		return nil, decision, subject, nil
	}
	operations, decision := inject.Inject(&pod, decision, inject.Options{
		Policy: r.policy, Image: r.Image, ServiceAccountAnnotations: account.Metadata.Annotations,
	})
	return operations, decision, subject, nil
}

// describe is a decision in one line.
func describe(kind string, s policy.Subject, d policy.Decision, operations []inject.Operation) string {
	about := "Pod of " + s.String()
	if kind != "Pod" {
		about = kind + " " + s.Namespace + "/" + s.ServiceAccount
	}
	outcome := "Skip"
	if d.Inject {
		outcome = "Inject"
	}
	line := fmt.Sprintf("%s: %s: %s", about, outcome, d.Reason)
	if len(d.Destinations) > 0 {
		names := make([]string, len(d.Destinations))
		for i, destination := range d.Destinations {
			names[i] = destination.Name
		}
		line += " (" + strings.Join(names, ", ") + ")"
	}
	if mark, marked := inject.Marked(operations); marked {
		line += ": " + mark.Reload.String()
	}
	if d.Warning != "" {
		line += ": " + d.Warning
	}
	return line
}
