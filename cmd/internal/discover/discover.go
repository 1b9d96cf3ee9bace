// Package discover finds the Prometheus pods of a cluster, reports how ampbridge would
// deliver their samples, and writes the grants for them. It needs no policy and no
// installation, changes nothing, and does not call AWS.
//
// It needs the right to list pods, in all namespaces or in the named one. If it cannot read
// namespaces, it does not report which of them lack the label.
package discover

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/ampbridge/ampbridge/cmd/internal/kube"
	"github.com/ampbridge/ampbridge/cmd/internal/output"
	"github.com/ampbridge/ampbridge/cmd/internal/usage"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/webhook/audit"
	"github.com/ampbridge/ampbridge/webhook/inject"
)

// Output formats.
const (
	Text = output.Text
	JSON = output.JSON
	YAML = output.YAML
)

// Options are the command's flags.
type Options struct {
	Kubeconfig string
	Overrides  kube.Overrides
	// Namespace limits the search to its pods; empty means all namespaces.
	Namespace string
	// Destination is the destination's name in the grants.
	Destination string
	Output      string
}

// Report holds the workloads and the grants for them.
type Report struct {
	Workloads []Workload `json:"workloads"`
	// Grants are for the workloads that ampbridge can serve.
	Grants []Grant `json:"grants"`
	// Unlabelled are the namespaces of these grants in which the webhook does not see pods, because
	// the label for injection is missing or has an unknown value; null if that is not known.
	Unlabelled []string `json:"unlabelled"`

	// labels are the values of that label.
	labels map[string]string
}

// Workload is a Prometheus with all its pods.
type Workload struct {
	Namespace      string `json:"namespace"`
	ServiceAccount string `json:"serviceAccount"`
	// Name is the controller's name as kind/name, or pod/name for a pod without a controller.
	Name string `json:"workload"`
	Pods int    `json:"pods"`
	// Injected is true if the pods are injected already.
	Injected bool `json:"injected"`
	// Mode is relay or identity for another program than Prometheus; empty for Prometheus.
	Mode policy.Mode `json:"mode,omitempty"`
	// Delivery is sigv4 or relay; empty for other programs, or if the workload cannot be injected.
	Delivery policy.Delivery `json:"delivery,omitempty"`
	// Reason is Granted, or why the workload cannot be injected.
	Reason policy.Reason `json:"reason"`
	// Text explains the delivery, or why there is none.
	Text string `json:"text,omitempty"`
}

// Grant is a grant of a policy.
type Grant struct {
	Namespaces      []string `json:"namespaces"`
	ServiceAccounts []string `json:"serviceAccounts"`
	Destinations    []string `json:"destinations"`
	// Mode is empty for Prometheus.
	Mode policy.Mode `json:"mode,omitempty"`
}

// Run prints the workloads of the cluster and the grants for them.
func Run(ctx context.Context, o Options, stdout io.Writer) error {
	cluster, err := kube.Connect(o.Kubeconfig, o.Overrides)
	if err != nil {
		return err
	}
	finder, err := newFinder()
	if err != nil {
		return err
	}
	if err := cluster.EachPod(ctx, o.Namespace, finder.see); err != nil {
		if apierrors.IsForbidden(err) && o.Namespace == "" {
			return fmt.Errorf("%w: name a namespace that you may read with --namespace", err)
		}
		return err
	}
	if o.Namespace != "" && len(finder.found) == 0 {
		if err := exists(ctx, cluster, o.Namespace); err != nil {
			return err
		}
	}
	r := finder.report(o.Destination)
	if r.labels, err = labels(ctx, cluster, r.Grants); apierrors.IsForbidden(err) {
		r.Unlabelled = nil // not known: this user may not read namespaces
	} else if err != nil {
		return err
	} else {
		r.Unlabelled = append(r.Unlabelled, slices.Sorted(maps.Keys(r.labels))...)
	}
	if o.Output != Text {
		return output.Write(stdout, o.Output, r)
	}
	return r.write(stdout)
}

// exists returns an error if the namespace does not exist. If this user may not read namespaces,
// that is not known.
func exists(ctx context.Context, cluster kube.Cluster, name string) error {
	_, err := cluster.Client.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		return nil
	}
	var names []string
	if list, err := cluster.Client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{}); err == nil {
		for i := range list.Items {
			names = append(names, list.Items[i].Name)
		}
	}
	return fmt.Errorf("the cluster has no namespace %q%s", name, usage.DidYouMean("-n ", name, names))
}

// labels returns the label of each namespace of the grants in which the webhook does not see pods.
func labels(ctx context.Context, cluster kube.Cluster, grants []Grant) (map[string]string, error) {
	found := map[string]string{}
	for _, g := range grants {
		for _, name := range g.Namespaces {
			namespace, err := cluster.Client.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
			if err != nil {
				return nil, err
			}
			switch value := namespace.Labels[policy.LabelInjection]; policy.Injection(value) {
			case policy.InjectionEnabled, policy.InjectionAnnotated:
			default:
				found[name] = value
			}
		}
	}
	return found, nil
}

// finder collects the workloads one after the other, so that at most one page of pods
// is in memory.
type finder struct {
	// policies grant everything with one mode each, because only the pod matters here.
	policies map[policy.Mode]*policy.Policy
	found    map[[3]string]*Workload
}

// everything is a policy that gives one workspace to every pod.
const everything = `apiVersion: ampbridge.io/v1alpha1
kind: Policy
cluster: {name: discover}
destinations:
- name: central
  workspace: arn:aws:aps:eu-west-1:111122223333:workspace/ws-00000000-0000-0000-0000-000000000000
grants:
- {namespaces: ["*"], serviceAccounts: [prometheus], destinations: [central]}
trust: {manage: none}
`

func newFinder() (*finder, error) {
	f := &finder{policies: map[policy.Mode]*policy.Policy{}, found: map[[3]string]*Workload{}}
	for _, m := range []policy.Mode{policy.ModePrometheus, policy.ModeRelay, policy.ModeIdentity} {
		p, err := policy.Parse([]byte(everything))
		if err != nil {
			return nil, err
		}
		p.Grants[0].ServiceAccounts[0], p.Grants[0].Mode = "*", m // the parser refuses a grant of everything
		f.policies[m] = p
	}
	return f, nil
}

// see adds one pod to its workload.
func (f *finder) see(object *corev1.Pod) error {
	text, err := json.Marshal(object)
	if err != nil {
		return err
	}
	pod, err := audit.Decode(text)
	if err != nil {
		return fmt.Errorf("pod %s/%s: %w", object.Namespace, object.Name, err)
	}
	_, prometheus := inject.Prometheus(&pod.Pod)
	resembles := inject.Resembles(&pod.Pod)
	if !prometheus && resembles == "" {
		return nil
	}
	w := Workload{Namespace: object.Namespace, ServiceAccount: object.Spec.ServiceAccountName, Name: "pod/" + object.Name}
	if w.ServiceAccount == "" {
		w.ServiceAccount = "default" // the API server does the same
	}
	workload := inject.Workload(&pod.Pod)
	if workload.Controller != "" {
		w.Name = strings.ToLower(workload.Kind) + "/" + workload.Controller
	}
	known := f.found[[3]string{w.Namespace, w.ServiceAccount, w.Name}]
	if known == nil {
		known = &w
		f.found[[3]string{w.Namespace, w.ServiceAccount, w.Name}] = known
		f.judge(known, &pod.Pod, policy.Request{
			Namespace: w.Namespace, Injection: policy.InjectionEnabled, ServiceAccount: w.ServiceAccount,
			Prometheus: prometheus, Resembles: resembles, PodAnnotations: pod.Metadata.Annotations, Workload: workload,
		})
	}
	known.Pods++
	return nil
}

// judge decides as the webhook would in a labelled namespace with a grant.
func (f *finder) judge(w *Workload, pod *inject.Pod, r policy.Request) {
	if _, w.Injected = pod.Metadata.Annotations[inject.AnnotationInjected]; w.Injected {
		w.Reason = policy.Granted
		if mark, _, err := inject.Mark(pod, policy.Entitlement{}, f.policies[policy.ModePrometheus]); err == nil {
			w.Text, w.Mode = mark.String(), mark.Mode
			for _, name := range mark.Destinations {
				w.Delivery = mark.Delivery[name]
			}
		}
		return
	}
	switch asked := policy.Mode(pod.Metadata.Annotations[policy.AnnotationMode]); asked {
	case policy.ModeRelay, policy.ModeIdentity:
		f.try(w, pod, r, asked, "the annotation "+policy.AnnotationMode+" asks for it")
		return
	}
	f.try(w, pod, r, policy.ModePrometheus, "")
	for _, m := range []policy.Mode{policy.ModeRelay, policy.ModeIdentity} {
		if w.Reason != policy.Granted && onlyNamed(pod) {
			f.try(w, pod, r, m, "named by "+policy.AnnotationContainer+", and does not look like Prometheus")
		}
	}
}

// onlyNamed reports whether only the pod's owner says that the pod is for ampbridge: the named
// container does not look like Prometheus.
func onlyNamed(pod *inject.Pod) bool {
	named := pod.Metadata.Annotations[policy.AnnotationContainer]
	plain := *pod
	plain.Metadata.Annotations = maps.Clone(pod.Metadata.Annotations)
	delete(plain.Metadata.Annotations, policy.AnnotationContainer)
	container, prometheus := inject.Prometheus(&plain)
	return named != "" && inject.Resembles(&plain) == "" && (!prometheus || container != "" && container != named)
}

// try decides about a pod that a grant with the mode covers. For another mode than prometheus, why
// is the reason for it.
func (f *finder) try(w *Workload, pod *inject.Pod, r policy.Request, m policy.Mode, why string) {
	p := f.policies[m]
	decision := p.Decide(r)
	if decision.Inject {
		operations, after := inject.Inject(pod, decision, inject.Options{Policy: p, Image: "discover"})
		decision = after
		if mark, marked := inject.Marked(operations); marked && m != policy.ModePrometheus {
			w.Mode, w.Text = m, why
		} else if marked {
			w.Delivery, w.Text = mark.Delivery[p.Destinations[0].Name], mark.Why
			if w.Text == "" {
				w.Text = mark.Reload.String()
			}
		}
	}
	w.Reason = decision.Reason
	if decision.Warning != "" {
		w.Text = decision.Warning
	}
}

// report sorts the workloads and writes the grants.
func (f *finder) report(destination string) Report {
	r := Report{Workloads: []Workload{}, Grants: []Grant{}, Unlabelled: []string{}}
	type key struct {
		namespace string
		mode      policy.Mode
	}
	accounts := map[key]map[string]bool{}
	for _, w := range f.found {
		r.Workloads = append(r.Workloads, *w)
		if w.Reason != policy.Granted {
			continue
		}
		k := key{w.Namespace, w.Mode}
		if accounts[k] == nil {
			accounts[k] = map[string]bool{}
		}
		accounts[k][w.ServiceAccount] = true
	}
	slices.SortFunc(r.Workloads, func(a, b Workload) int {
		return strings.Compare(a.Namespace+"\x00"+a.Name+"\x00"+a.ServiceAccount, b.Namespace+"\x00"+b.Name+"\x00"+b.ServiceAccount)
	})
	for k, names := range accounts {
		r.Grants = append(r.Grants, Grant{[]string{k.namespace}, slices.Sorted(maps.Keys(names)), []string{destination}, k.mode})
	}
	slices.SortFunc(r.Grants, func(a, b Grant) int {
		return cmp.Or(strings.Compare(a.Namespaces[0], b.Namespaces[0]), strings.Compare(string(a.Mode), string(b.Mode)))
	})
	return r
}

func (r Report) write(stdout io.Writer) error {
	if len(r.Workloads) == 0 {
		_, err := fmt.Fprintln(stdout, "no Prometheus was found: a pod that runs one with an unusual image and "+
			"unusual flags needs the annotation "+
			policy.AnnotationContainer)
		return err
	}
	var b strings.Builder
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "NAMESPACE\tWORKLOAD\tPODS\tSERVICE ACCOUNT\tDELIVERY\tWHY")
	for _, w := range r.Workloads {
		delivery := string(w.Delivery)
		switch {
		case w.Reason != policy.Granted:
			delivery = "none: " + string(w.Reason)
		case w.Mode != "":
			delivery = "mode " + string(w.Mode)
		}
		if w.Injected {
			delivery += ", injected"
		}
		_, _ = fmt.Fprintf(table, "%s\t%s\t%d\t%s\t%s\t%s\n", w.Namespace, w.Name, w.Pods, w.ServiceAccount, delivery, w.Text)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if len(r.Grants) == 0 {
		_, err := io.WriteString(stdout, b.String())
		return err
	}
	grants, err := yaml.Marshal(map[string][]Grant{"grants": r.Grants})
	if err != nil {
		return err
	}
	fmt.Fprintf(&b, "\nFor the policy, with a destination of the name %s:\n\n%s", r.Grants[0].Destinations[0], grants)
	for _, g := range r.Grants {
		if slices.Contains(g.ServiceAccounts, "default") {
			fmt.Fprintf(&b, "# default of namespace %s: every pod without its own service account gets this grant; better give "+
				"Prometheus one.\n",
				g.Namespaces[0])
		}
	}
	if slices.ContainsFunc(r.Grants, func(g Grant) bool { return g.Mode == policy.ModeRelay }) {
		fmt.Fprintln(&b, "# mode relay: for programs that write. A program that reads, or that signs for AWS itself, takes mode: identity.")
	}
	if len(r.Unlabelled) > 0 {
		fmt.Fprintln(&b, "\nThen label the namespaces, so that the webhook sees their pods:")
		for _, namespace := range r.Unlabelled {
			if value := r.labels[namespace]; value != "" {
				fmt.Fprintf(&b, "  # the label of %s is %q\n", namespace, value)
			}
			fmt.Fprintf(&b, "  %s\n", kube.LabelCommand(namespace, r.labels[namespace]))
		}
	}
	_, err = io.WriteString(stdout, b.String())
	return err
}
