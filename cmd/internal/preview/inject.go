// Package preview shows what pods would get, without a cluster: [Inject] prints objects as
// the webhook would change them, and [Config] prints the Prometheus configuration as the sidecar
// would render it. Both call the functions of webhook and sidecar. Operations
// are applied to the text, so fields that this build does not know stay.
package preview

import (
	"cmp"
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
	// Image is the sidecar's, if the policy names none. ImageNamed is false if it is the default.
	Image      string
	ImageNamed bool
	Output     string
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
	for i := range documents {
		if err := documents[i].each(r.change); err != nil {
			return fmt.Errorf("%s: %w", o.File, err)
		}
	}
	if r.decided == 0 {
		return fmt.Errorf("%s: %s", o.File, unusable(r.others))
	}
	if o.Output == Patch && r.decided > 1 {
		return usage.Errorf("-o patch is for one object, and %s has %d: write -o yaml or -o json", o.File, r.decided)
	}
	if r.published && !o.ImageNamed {
		_, err := fmt.Fprintf(stderr, "the sidecar's image is %s, the default of --image: before you apply this, name your own with --image; "+
			"in a cluster the webhook takes its own image\n", o.Image)
		if err != nil {
			return err
		}
	}
	return writeDocuments(stdout, documents, o.Output)
}

// unusable returns why files without an object to decide about are no use, and the fix.
func unusable(found []object) string {
	const fix = "; from a cluster: kubectl get pod -n NAMESPACE NAME -o yaml | ampbridge inject -f - --policy FILE"
	if len(found) == 0 {
		return "it is empty: write a Pod" + fix
	}
	var kinds []string
	for _, o := range found {
		switch {
		case o.is(policy.APIVersion, policy.Kind):
			return "it is a policy: name it with --policy, and the file with the Pod with -f"
		case o.Kind == "":
			return "it has no Kubernetes object (no kind): for a prometheus.yml use ampbridge config"
		case strings.HasPrefix(o.APIVersion, "monitoring.coreos.com/"):
			return "it has a " + o.Kind + ", and prometheus-operator makes the pods: give one of those" + fix
		case !slices.Contains(kinds, o.Kind):
			kinds = append(kinds, o.Kind)
		}
	}
	return "it has neither a Pod, a ServiceAccount, a Deployment, a StatefulSet, a DaemonSet nor a ReplicaSet, but " +
		strings.Join(kinds, ", ") + fix
}

// injection holds what the decisions depend on.
type injection struct {
	InjectOptions
	policy   *policy.Policy
	stderr   io.Writer
	accounts map[policy.Subject]inject.ServiceAccount
	// decided counts the objects with a decision, and others are those without one.
	decided int
	others  []object
	// published is true if an injected sidecar has the image of the options.
	published bool
}

// change decides about one object, and prints the decision.
func (r *injection) change(text []byte, header object) (operations []jsonpatch.Operation, err error) {
	t := &target{kind: header.Kind, text: text}
	var decision policy.Decision
	switch {
	case header.is("v1", "Pod"):
		operations, decision, err = r.pod(t)
	case header.is("v1", "ServiceAccount"):
		operations, decision, err = r.serviceAccount(t)
	case header.is("apps/v1", "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"):
		operations, decision, err = r.workload(t)
	default:
		r.others = append(r.others, header)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r.decided++
	if _, err := fmt.Fprintln(r.stderr, r.describe(t, decision, operations)); err != nil {
		return nil, err
	}
	if t.pod != nil && len(operations) > 0 && decision.Mode != policy.ModeIdentity && r.policy.Sidecar.Image == "" {
		r.published = true
	}
	for i := range operations {
		operations[i].Path = t.at + operations[i].Path
	}
	return operations, nil
}

// target is an object that inject decides about.
type target struct {
	policy.Subject
	kind string
	// name is the name of a workload or service account.
	name string
	text []byte
	// pod is the pod, or the pod template of a workload; nil for a service account.
	pod *inject.Pod
	// at is the JSON pointer of the pod template; empty for a pod or service account.
	at string
	// namesNamespace is false if the namespace is that of the options.
	namesNamespace bool
}

// of sets the subject of the target, with the defaults of the options and of Kubernetes.
func (t *target) of(namespace, account string, o InjectOptions) {
	t.namesNamespace = namespace != ""
	t.Subject = policy.Subject{Namespace: cmp.Or(namespace, o.Namespace), ServiceAccount: cmp.Or(account, "default")}
}

func (t *target) String() string {
	switch t.kind {
	case "Pod":
		return "Pod of " + t.Subject.String()
	case "ServiceAccount":
		return t.kind + " " + t.Namespace + "/" + t.name
	}
	return t.kind + " " + t.name + " of " + t.Subject.String()
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
		err := documents[i].each(func(text []byte, header object) ([]jsonpatch.Operation, error) {
			if !header.is("v1", "ServiceAccount") {
				return nil, nil
			}
			var t target
			account, err := r.account(&t, text)
			r.accounts[t.Subject] = account
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

// account decodes a service account, and sets the target's subject.
func (r *injection) account(t *target, text []byte) (account inject.ServiceAccount, err error) {
	if err := json.Unmarshal(text, &account); err != nil {
		return account, fmt.Errorf("not a ServiceAccount: %w", err)
	}
	t.name = account.Metadata.Name
	t.of(account.Metadata.Namespace, t.name, r.InjectOptions)
	account.Metadata.Namespace = t.Namespace
	return account, nil
}

func (r *injection) serviceAccount(t *target) ([]jsonpatch.Operation, policy.Decision, error) {
	account, err := r.account(t, t.text)
	if err != nil {
		return nil, policy.Decision{}, err
	}
	operations, decision := inject.Annotate(&account, policy.Injection(r.NamespaceLabel), r.policy)
	return operations, decision, nil
}

func (r *injection) pod(t *target) ([]jsonpatch.Operation, policy.Decision, error) {
	t.pod = &inject.Pod{}
	if err := json.Unmarshal(t.text, t.pod); err != nil {
		return nil, policy.Decision{}, fmt.Errorf("not a Pod: %w", err)
	}
	return r.decide(t)
}

// workload decides about the pods that a workload creates. The webhook changes these pods and never
// the workload; here the pod template changes in the same way.
func (r *injection) workload(t *target) ([]jsonpatch.Operation, policy.Decision, error) {
	var w struct {
		Metadata struct {
			Name      string `json:"name"`
			Namespace string `json:"namespace"`
		} `json:"metadata"`
		Spec struct {
			Template inject.Pod `json:"template"`
		} `json:"spec"`
	}
	if err := json.Unmarshal(t.text, &w); err != nil {
		return nil, policy.Decision{}, fmt.Errorf("not a %s: %w", t.kind, err)
	}
	t.name, t.pod = w.Metadata.Name, &w.Spec.Template
	t.pod.Metadata.Namespace, t.pod.Metadata.GenerateName = w.Metadata.Namespace, t.name+"-"
	t.pod.Metadata.Owners = []inject.Owner{{Kind: t.kind, Name: t.name, Controller: true}}
	t.at = "/spec/template"
	return r.decide(t)
}

func (r *injection) decide(t *target) ([]jsonpatch.Operation, policy.Decision, error) {
	pod := t.pod
	t.of(pod.Metadata.Namespace, pod.Spec.ServiceAccountName, r.InjectOptions)
	_, labelled := pod.Metadata.Labels[policy.LabelInjection]
	_, annotated := pod.Metadata.Annotations[policy.LabelInjection]
	if labelled || annotated {
		_, err := fmt.Fprintf(r.stderr, "%s: %s on a pod has no effect: it is a label of the namespace\n", t, policy.LabelInjection)
		if err != nil {
			return nil, policy.Decision{}, err
		}
	}
	account, known := r.accounts[t.Subject]
	if r.ServiceAccount != "" && !known {
		return nil, policy.Decision{}, fmt.Errorf("the pod runs as %s, which is not the service account of %s", t.Subject, r.ServiceAccount)
	}
	_, prometheus := inject.Prometheus(pod)
	decision := r.policy.Decide(policy.Request{
		Namespace: t.Namespace, Injection: policy.Injection(r.NamespaceLabel), ServiceAccount: t.ServiceAccount,
		Prometheus: prometheus, Resembles: inject.Resembles(pod),
		PodAnnotations: pod.Metadata.Annotations, ServiceAccountAnnotations: account.Metadata.Annotations,
		Workload: inject.Workload(pod),
	})
	if !decision.Inject {
		return nil, decision, nil
	}
	operations, decision := inject.Inject(pod, decision, inject.Options{
		Policy: r.policy, Image: r.Image, ServiceAccountAnnotations: account.Metadata.Annotations,
	})
	return operations, decision, nil
}

// describe returns a decision as one line.
func (r *injection) describe(t *target, d policy.Decision, operations []jsonpatch.Operation) string {
	outcome := "Skip"
	if d.Inject {
		outcome = "Inject"
	}
	line := fmt.Sprintf("%s: %s: %s", t, outcome, d.Reason)
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
	notes := r.explain(t, d)
	if d.Warning != "" {
		notes = append([]string{d.Warning}, notes...)
	}
	if len(notes) > 0 {
		line += ": " + strings.Join(notes, "; ")
	}
	return line
}
