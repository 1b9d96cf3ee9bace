package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"

	"github.com/ampbridge/ampbridge/cmd/internal/awsiam"
	"github.com/ampbridge/ampbridge/cmd/internal/kube"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/plan"
	"github.com/ampbridge/ampbridge/policy/policyfile"
	"github.com/ampbridge/ampbridge/webhook/audit"
	"github.com/ampbridge/ampbridge/webhook/breaker/store"
	"github.com/ampbridge/ampbridge/webhook/inject"
)

const (
	// awsTimeout limits the reads of all accounts together, so that a report is quick.
	awsTimeout = 20 * time.Second
)

// collector reads everything that a report needs.
type collector struct {
	options Options
	cluster kube.Cluster
	client  kubernetes.Interface // of the cluster
	// file is the policy given on the command line.
	file *policy.Policy
}

func newCollector(o Options, stdin io.Reader) (*collector, error) {
	c := &collector{options: o}
	var err error
	if o.Policy != "" {
		if c.file, err = policyfile.Load(o.Policy, stdin); err != nil {
			return nil, err
		}
	}
	c.cluster, err = kube.Connect(o.Kubeconfig, o.Overrides)
	c.client = c.cluster.Client
	return c, err
}

// collect returns a report. It fails if it cannot read the policy or the service accounts,
// because a report needs both.
func (c *collector) collect(ctx context.Context) (Report, error) {
	r := Report{Time: time.Now(), Subjects: []Subject{}, Pods: []Pod{}, Unseen: []Namespace{}, Unavailable: []string{}}
	p, from, err := c.policy(ctx)
	if err != nil {
		return r, err
	}
	issuer, accounts, err := c.cluster.Observe(ctx, p.Cluster.Issuer)
	if err != nil {
		return r, err
	}
	c.unseen(ctx, &r, p, accounts)
	if only := c.options.Subjects; only != "" {
		accounts = slices.DeleteFunc(accounts, func(a plan.ServiceAccount) bool { return a.Namespace != only })
	}
	r.Cluster, r.Issuer, r.PolicyFrom, r.Paused = p.Cluster.Name, issuer, from, p.Paused
	r.subjects(p, accounts)
	r.destinations(p)
	c.pods(ctx, &r, p, accounts)
	c.roles(ctx, &r, p, issuer)
	return r, ctx.Err()
}

// policy returns the policy of the command line, or else the installed one.
func (c *collector) policy(ctx context.Context) (p *policy.Policy, from string, err error) {
	if c.file != nil {
		return c.file, c.options.Policy, nil
	}
	found, err := kube.Policies(ctx, c.client, c.options.Namespace)
	if err != nil {
		return nil, "", fmt.Errorf("cannot read the installation's policy: %w; or name a file with --policy", err)
	}
	switch len(found) {
	case 0:
		return nil, "", fmt.Errorf(
			"namespace %s has no policy (a ConfigMap labelled %s with the key %s): name ampbridge's namespace with "+
				"--system-namespace, or a file with --policy",
			c.options.Namespace,
			kube.Selector,
			kube.PolicyKey,
		)
	case 1:
		from = "ConfigMap " + c.options.Namespace + "/" + found[0].ConfigMap
		p, err := policyfile.Parse(from, []byte(found[0].Text))
		return p, from, err
	}
	return nil, "", fmt.Errorf("namespace %s has %d policies: name a file with --policy", c.options.Namespace, len(found))
}

// unseen adds the namespaces of grants in which the webhook does not see pods: those that a grant
// names without a pattern, and those with an unknown value of the label. It also adds the namespace
// of the options, for which the report would otherwise be empty.
func (c *collector) unseen(ctx context.Context, r *Report, p *policy.Policy, accounts []plan.ServiceAccount) {
	seen := map[string]bool{} // each labelled namespace has the service account default
	for _, a := range accounts {
		seen[a.Namespace] = true
	}
	add := func(n Namespace) {
		if only := c.options.Subjects; !seen[n.Name] && (only == "" || only == n.Name) {
			r.Unseen = append(r.Unseen, n)
		}
		seen[n.Name] = true
	}
	namespaces := c.client.CoreV1().Namespaces()
	wrong, err := namespaces.List(ctx, metav1.ListOptions{
		LabelSelector: fmt.Sprintf("%s,%[1]s notin (%s,%s)", policy.LabelInjection, policy.InjectionEnabled, policy.InjectionAnnotated),
	})
	if err != nil {
		r.addUnavailable("namespaces with an unknown label: %v", err)
		return
	}
	for _, ns := range wrong.Items {
		covers := func(name policy.Glob) bool { return name.Match(ns.Name) }
		if slices.ContainsFunc(p.Grants, func(g policy.Grant) bool { return slices.ContainsFunc(g.Namespaces, covers) }) {
			add(Namespace{ns.Name, true, ns.Labels[policy.LabelInjection]})
		}
	}
	var names []string
	for _, g := range p.Grants {
		for _, name := range g.Namespaces {
			if !strings.Contains(string(name), "*") {
				names = append(names, string(name))
			}
		}
	}
	if c.options.Subjects != "" {
		names = []string{c.options.Subjects}
	}
	for _, name := range names {
		if seen[name] {
			continue
		}
		// Without the right to get namespaces, one is found in a list.
		list, err := namespaces.List(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String()})
		if err != nil {
			r.addUnavailable("namespace %s: %v", name, err)
			continue
		}
		n := Namespace{Name: name}
		for _, ns := range list.Items {
			n.Exists, n.Injection = true, ns.Labels[policy.LabelInjection]
		}
		add(n)
	}
}

func (r *Report) subjects(p *policy.Policy, accounts []plan.ServiceAccount) {
	for _, a := range accounts {
		e, granted := p.Entitled(policy.Subject{Namespace: a.Namespace, ServiceAccount: a.Name})
		if !granted {
			continue
		}
		decision := p.Decide(policy.Request{
			Namespace: a.Namespace, Injection: a.Injection, ServiceAccount: a.Name, Account: true,
			ServiceAccountAnnotations: a.Annotations,
		})
		if decision.Inject {
			e = decision.Entitlement // the account's annotations may have removed destinations
		}
		s := Subject{
			Namespace:      a.Namespace,
			ServiceAccount: a.Name,
			Decision:       decision.Reason,
			Shown:          a.Annotations[policy.AnnotationRoleARN],
		}
		for _, d := range e.Destinations {
			s.Destinations = append(s.Destinations, d.Name)
		}
		r.Subjects = append(r.Subjects, s)
	}
	slices.SortFunc(r.Subjects, func(a, b Subject) int {
		return strings.Compare(a.Namespace+"/"+a.ServiceAccount, b.Namespace+"/"+b.ServiceAccount)
	})
}

// destinations adds the destinations and their roles. The report must have the subjects already,
// because each subject can have its own role.
func (r *Report) destinations(p *policy.Policy) {
	for _, d := range p.Destinations {
		state := Unknown
		if !plan.Managed(p, d) {
			state = NotManaged
		}
		seen := Destination{Name: d.Name, Workspace: d.Workspace, Access: d.Access, Roles: []Role{}}
		if p.Trust.RoleScope != policy.RoleScopeServiceAccount || !d.Role.IsZero() {
			seen.Roles = append(seen.Roles, Role{ARN: p.Role(d), State: state, Trusted: []string{}})
		} else {
			for _, s := range r.Subjects {
				if slices.Contains(s.Destinations, d.Name) {
					seen.Roles = append(
						seen.Roles,
						Role{ARN: p.RoleFor(d, s.subject()), Subject: s.subject().String(), State: state, Trusted: []string{}},
					)
				}
			}
		}
		r.Destinations = append(r.Destinations, seen)
	}
}

// pods adds the Prometheus pods of the labelled namespaces, with the auditor's findings.
func (c *collector) pods(ctx context.Context, r *Report, p *policy.Policy, accounts []plan.ServiceAccount) {
	open, err := store.Read(ctx, c.client.CoreV1().ConfigMaps(c.options.Namespace))
	if err != nil {
		r.addUnavailable("the circuit breaker: %v", err)
	}
	image, err := c.image(ctx)
	if err != nil {
		r.addUnavailable("the sidecar's image: %v", err)
	}
	annotations := map[string]map[string]string{}
	labelled := map[string]policy.Injection{}
	var namespaces []string
	for _, a := range accounts {
		annotations[a.Namespace+"/"+a.Name] = a.Annotations
		if _, known := labelled[a.Namespace]; !known {
			namespaces = append(namespaces, a.Namespace)
		}
		labelled[a.Namespace] = a.Injection
	}
	slices.Sort(namespaces)
	for _, namespace := range namespaces {
		pods, limits, err := c.readNamespace(ctx, namespace)
		if err != nil {
			r.addUnavailable("the pods of namespace %s: %v", namespace, err)
			continue
		}
		for _, pod := range pods {
			seen, relevant, err := c.pod(ctx, &pod, audit.Question{
				Policy: p, Image: image, Injection: labelled[namespace], Limits: limits, Breaker: open,
				ServiceAccount: annotations[namespace+"/"+account(&pod)],
			})
			switch {
			case err != nil:
				r.addUnavailable("pod %s/%s: %v", namespace, pod.Name, err)
			case relevant:
				r.Pods = append(r.Pods, seen)
			}
		}
	}
}

// readNamespace returns the pods of a namespace, and its limits.
func (c *collector) readNamespace(ctx context.Context, namespace string) (pods []corev1.Pod, limits inject.Limits, err error) {
	const page = 200
	for o := (metav1.ListOptions{Limit: page}); ; {
		list, err := c.client.CoreV1().Pods(namespace).List(ctx, o)
		if err != nil {
			return nil, limits, err
		}
		pods = append(pods, list.Items...)
		if o.Continue = list.Continue; o.Continue == "" {
			break
		}
	}
	ranges, err := c.client.CoreV1().LimitRanges(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, limits, err
	}
	quotas, err := c.client.CoreV1().ResourceQuotas(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, limits, err
	}
	return pods, inject.Limits{Ranges: ranges.Items, Quotas: quotas.Items}, nil
}

func account(pod *corev1.Pod) string {
	if pod.Spec.ServiceAccountName == "" {
		return "default"
	}
	return pod.Spec.ServiceAccountName
}

// pod describes a pod. relevant is true if the pod was injected or has a finding.
func (c *collector) pod(ctx context.Context, pod *corev1.Pod, q audit.Question) (seen Pod, relevant bool, err error) {
	text, err := json.Marshal(pod)
	if err != nil {
		return seen, false, err
	}
	if q.Pod, err = audit.Decode(text); err != nil {
		return seen, false, err
	}
	found := audit.Assess(q)
	mark, injected := pod.Annotations[inject.AnnotationInjected]
	if found.Kind == audit.None && !injected {
		return seen, false, nil
	}
	seen = Pod{
		Namespace: pod.Namespace, Name: pod.Name, ServiceAccount: account(pod), Phase: string(pod.Status.Phase), Destinations: []string{},
		Finding: found.Kind, Reason: found.Reason, Text: found.Text,
		Ready: slices.ContainsFunc(pod.Status.Conditions, func(condition corev1.PodCondition) bool {
			return condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue
		}),
	}
	if !injected {
		return seen, true, nil
	}
	var carried inject.Injected
	if err := json.Unmarshal([]byte(mark), &carried); err != nil {
		return seen, false, fmt.Errorf("annotation %s: %w", inject.AnnotationInjected, err)
	}
	seen.Destinations, seen.Delivery, seen.Why, seen.Mode = carried.Destinations, carried.Delivery, carried.Why, carried.Mode
	if carried.Mode == policy.ModeIdentity {
		return seen, true, nil // the pod has no sidecar
	}
	if pod.Status.Phase != corev1.PodRunning && pod.Status.Phase != corev1.PodPending {
		return seen, true, nil
	}
	c.sidecar(ctx, pod, &seen, carried, q.Policy.Sidecar.Image)
	return seen, true, nil
}

// image returns the sidecar's image that the installed webhook injects.
func (c *collector) image(ctx context.Context) (string, error) {
	list, err := c.client.AppsV1().Deployments(c.options.Namespace).List(ctx, metav1.ListOptions{LabelSelector: kube.WebhookSelector})
	if err != nil {
		return "", err
	}
	for i := range list.Items {
		if image := kube.InjectedImage(&list.Items[i]); image != "" {
			return image, nil
		}
	}
	// With an empty image, every pod would seem impossible to inject.
	return "unknown", errors.New("no installed webhook names it, so open circuit breakers are not shown")
}

// roles reads the roles from AWS, if there are credentials.
func (c *collector) roles(ctx context.Context, r *Report, p *policy.Policy, issuer policy.Issuer) {
	if c.options.NoAWS {
		r.addUnavailable("AWS: --no-aws")
		return
	}
	ctx, cancel := context.WithTimeout(ctx, awsTimeout)
	defer cancel()
	iam := awsiam.New(p.Trust.Accounts)
	for _, target := range plan.Targets(p, issuer) {
		provider, roles, err := listRoles(ctx, iam, target)
		if err != nil {
			r.addUnavailable("AWS account %s: %v", target.Account, err)
			continue
		}
		if provider == nil {
			r.addUnavailable("AWS account %s: it has no OIDC provider for the cluster's issuer", target.Account)
		}
		for _, d := range r.Destinations {
			for i := range d.Roles {
				if d.Roles[i].State == Unknown && d.Roles[i].ARN.Account == target.Account {
					d.Roles[i].update(roles, issuer)
					d.Roles[i].NotGranted = notGranted(p, d, d.Roles[i])
				}
			}
		}
	}
}

// notGranted returns the role's trusted subjects that no grant covers. A service account that was
// deleted a short time ago is still covered.
func notGranted(p *policy.Policy, d Destination, r Role) (list []string) {
	for _, text := range r.Trusted {
		subject, err := policy.ParseSubject(text)
		e, covered := p.Entitled(subject)
		same := func(o policy.Destination) bool { return o.Name == d.Name }
		if err != nil || !covered || !slices.ContainsFunc(e.Destinations, same) {
			list = append(list, text)
		}
	}
	return list
}

// listRoles lists the roles of a cluster, because one list is cheaper than reading each role. It
// contains the trust documents, and a report needs no more.
func listRoles(ctx context.Context, iam *awsiam.IAM, target plan.Target) (*awsiam.ProviderDetails, map[string]plan.Role, error) {
	account, err := iam.Inspect(ctx, target)
	if err != nil {
		return nil, nil, err
	}
	provider, err := account.Provider(ctx, target.Provider)
	if err != nil {
		return nil, nil, err
	}
	roles, err := account.Roles(ctx, target.Path)
	return provider, roles, err
}

// update sets the state and the subjects of the role from the roles that were read.
func (r *Role) update(roles map[string]plan.Role, issuer policy.Issuer) {
	found, exists := roles[r.ARN.RoleName()]
	if !exists || found.ARN != r.ARN {
		r.State = Absent
		return
	}
	r.State = Present
	if document, err := policy.ParseDocument(found.Trust); err == nil {
		for _, s := range document.Subjects(issuer) {
			r.Trusted = append(r.Trusted, s.String())
		}
	}
}
