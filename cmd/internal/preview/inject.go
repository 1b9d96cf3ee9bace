// Package preview shows what pods would get, without a cluster: [Inject] prints objects as
// the webhook would change them, and [Config] prints the Prometheus configuration as the sidecar
// would render it. Both call the functions of webhook and sidecar. Operations
// are applied to the text, so fields that this build does not know stay.
package preview

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"gomodules.xyz/jsonpatch/v2"

	"github.com/ampbridge/ampbridge/cmd/internal/usage"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/policyfile"
	"github.com/ampbridge/ampbridge/webhook/inject"
)

// Output formats of [Inject].
const (
	YAML  = "yaml"
	JSON  = "json"
	Patch = "patch"
)

// InjectOptions configures [Inject].
type InjectOptions struct {
	File           string
	Policy         string
	ServiceAccount string
	Namespace      string
	NamespaceLabel string
	Image          string
	Output         string
}

// Inject prints the objects on stdout and the decisions on stderr.
func Inject(o InjectOptions, stdin io.Reader, stdout, stderr io.Writer) error {
	p, err := policyfile.Load(o.Policy, stdin)
	if err != nil {
		return err
	}
	documents, err := readDocuments(o.File, stdin)
	if err != nil {
		return err
	}
	r := injection{InjectOptions: o, policy: p, stderr: stderr, accounts: map[policy.Subject]inject.ServiceAccount{}}
	if err := r.readServiceAccounts(documents, stdin); err != nil {
		return err
	}
	decided := 0
	for i := range documents {
		err := documents[i].each(func(object []byte, kind string) ([]jsonpatch.Operation, error) {
			var decision policy.Decision
			var operations []jsonpatch.Operation
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
		return fmt.Errorf(
			"%s: it contains neither a Pod nor a ServiceAccount; for a Deployment or StatefulSet use one of its pods",
			o.File,
		)
	}
	if o.Output == Patch && decided > 1 {
		return usage.Errorf("-o patch is for one object, and %s has %d: write -o yaml or -o json", o.File, decided)
	}
	return writeDocuments(stdout, documents, o.Output)
}

// injection holds what the decisions depend on.
type injection struct {
	InjectOptions
	policy   *policy.Policy
	stderr   io.Writer
	accounts map[policy.Subject]inject.ServiceAccount
}

// readServiceAccounts collects the service accounts: those among the documents, and the
// one of --service-account-file.
func (r *injection) readServiceAccounts(documents []document, stdin io.Reader) error {
	if r.ServiceAccount != "" {
		more, err := readDocuments(r.ServiceAccount, stdin)
		if err != nil {
			return err
		}
		documents = append(slices.Clip(documents), more...)
	}
	for i := range documents {
		err := documents[i].each(func(object []byte, kind string) ([]jsonpatch.Operation, error) {
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
		return fmt.Errorf("%s: it contains no ServiceAccount", r.ServiceAccount)
	}
	return nil
}

func subjectOf(m inject.Metadata) policy.Subject {
	return policy.Subject{Namespace: m.Namespace, ServiceAccount: m.Name}
}

func (r *injection) account(object []byte) (account inject.ServiceAccount, err error) {
	if err := json.Unmarshal(object, &account); err != nil {
		return account, fmt.Errorf("not a ServiceAccount: %w", err)
	}
	if account.Metadata.Namespace == "" {
		account.Metadata.Namespace = r.Namespace
	}
	return account, nil
}

func (r *injection) serviceAccount(object []byte) ([]jsonpatch.Operation, policy.Decision, policy.Subject, error) {
	account, err := r.account(object)
	if err != nil {
		return nil, policy.Decision{}, policy.Subject{}, err
	}
	operations, decision := inject.Annotate(&account, policy.Injection(r.NamespaceLabel), r.policy)
	return operations, decision, subjectOf(account.Metadata), nil
}

func (r *injection) pod(object []byte) ([]jsonpatch.Operation, policy.Decision, policy.Subject, error) {
	var pod inject.Pod
	if err := json.Unmarshal(object, &pod); err != nil {
		return nil, policy.Decision{}, policy.Subject{}, fmt.Errorf("not a Pod: %w", err)
	}
	subject := policy.Subject{Namespace: pod.Metadata.Namespace, ServiceAccount: pod.Spec.ServiceAccountName}
	if subject.Namespace == "" {
		subject.Namespace = r.Namespace
	}
	if subject.ServiceAccount == "" {
		subject.ServiceAccount = "default" // the API server does the same
	}
	_, labelled := pod.Metadata.Labels[policy.LabelInjection]
	_, annotated := pod.Metadata.Annotations[policy.LabelInjection]
	if labelled || annotated {
		_, err := fmt.Fprintf(r.stderr, "Pod of %s: %s on a pod has no effect: it is a label of the namespace\n",
			subject, policy.LabelInjection)
		if err != nil {
			return nil, policy.Decision{}, subject, err
		}
	}
	account, known := r.accounts[subject]
	if r.ServiceAccount != "" && !known {
		return nil, policy.Decision{}, subject, fmt.Errorf(
			"the pod runs as %s, which is not the service account of %s",
			subject,
			r.ServiceAccount,
		)
	}
	_, prometheus := inject.Prometheus(&pod)
	decision := r.policy.Decide(policy.Request{
		Namespace: subject.Namespace, Injection: policy.Injection(r.NamespaceLabel), ServiceAccount: subject.ServiceAccount,
		Prometheus: prometheus, Resembles: inject.Resembles(&pod),
		PodAnnotations: pod.Metadata.Annotations, ServiceAccountAnnotations: account.Metadata.Annotations,
		Workload: inject.Workload(&pod),
	})
	if !decision.Inject {
		return nil, decision, subject, nil
	}
	operations, decision := inject.Inject(&pod, decision, inject.Options{
		Policy: r.policy, Image: r.Image, ServiceAccountAnnotations: account.Metadata.Annotations,
	})
	return operations, decision, subject, nil
}

// describe returns a decision as one line.
func describe(kind string, s policy.Subject, d policy.Decision, operations []jsonpatch.Operation) string {
	target := "Pod of " + s.String()
	if kind != "Pod" {
		target = kind + " " + s.Namespace + "/" + s.ServiceAccount
	}
	outcome := "Skip"
	if d.Inject {
		outcome = "Inject"
	}
	line := fmt.Sprintf("%s: %s: %s", target, outcome, d.Reason)
	if len(d.Destinations) > 0 {
		names := make([]string, len(d.Destinations))
		for i, destination := range d.Destinations {
			names[i] = destination.Name
		}
		line += " (" + strings.Join(names, ", ") + ")"
	}
	if mark, marked := inject.Marked(operations); marked {
		line += ": " + mark.String()
	}
	if d.Warning != "" {
		line += ": " + d.Warning
	}
	return line
}
