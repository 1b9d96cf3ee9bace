package doctor

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/ampbridge/ampbridge/cmd/internal/kube"
	"github.com/ampbridge/ampbridge/cmd/internal/usage"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/check"
)

const (
	// pageSize bounds what one list call returns.
	pageSize = 500
)

// cluster is the Kubernetes API.
type cluster struct {
	config *rest.Config
	client kubernetes.Interface
}

func connect(path string, overrides kube.Overrides) (*cluster, error) {
	config, err := kube.Config(path, overrides)
	if err != nil {
		return nil, err
	}
	config.QPS = -1
	config.WarningHandler = rest.NoWarnings{}
	config.Timeout = probeTimeout
	client, err := kubernetes.NewForConfig(config)
	return &cluster{config, client}, err
}

// checkCluster connects to the cluster and reads the policy.
func (x *runner) checkCluster(ctx context.Context) {
	x.checks.Head.Context = kube.Context(x.Kubeconfig, x.Overrides)
	var c *cluster
	if x.checks.Run(check.Kubernetes, check.About{}, func() check.Finding {
		var err error
		if c, err = connect(x.Kubeconfig, x.Overrides); err != nil {
			return noConnection(err)
		}
		version, err := c.client.Discovery().ServerVersion()
		if err != nil {
			return noAnswer(c.config.Host, err)
		}
		x.checks.Head.Versions.Kubernetes = version.GitVersion
		if f, old := tooOld(version.GitVersion); old {
			return f
		}
		return passed("%s, %s", c.config.Host, version.GitVersion)
	}) {
		x.cluster = c
	}
	if x.Policy != "" {
		x.source = policySource{file: x.Policy}
		x.checks.Run(check.Policy, check.About{}, func() check.Finding { return x.policyFinding(x.loadPolicy()) })
		return
	}
	if x.cluster == nil {
		x.checks.Skip(check.About{}, "there is no cluster to read the policy from: pass its file with --policy", check.Policy)
		return
	}
	x.checks.Run(check.Policy, check.About{}, func() check.Finding { return x.installedPolicy(ctx) })
}

// noConnection judges the error of a kubeconfig without a usable cluster. If the kubeconfig
// names no cluster, the check is skipped, and the checks of AWS still run.
func noConnection(err error) check.Finding {
	fix := check.NewFix("name an existing kubeconfig (--kubeconfig, $KUBECONFIG), and one of its contexts (--context)",
		check.Command{"kubectl", "config", "get-contexts"})
	if errors.Is(err, kube.ErrNone) {
		return unproven(fix, "%v", err)
	}
	return failed(fix, "the kubeconfig cannot be used: %s", strings.TrimPrefix(err.Error(), "no Kubernetes cluster: "))
}

// noAnswer judges the error of the first call to the API server.
func noAnswer(host string, err error) check.Finding {
	logIn := check.NewFix("log in to the cluster again, or use a kubeconfig with credentials that the API server accepts",
		check.Command{"kubectl", "auth", "whoami"})
	if call := (*url.Error)(nil); errors.As(err, &call) {
		err = call.Err // the message names the host already
	}
	var untrusted *tls.CertificateVerificationError
	switch {
	case forbidden(err):
		return failed(logIn, "%s refuses the credentials of the kubeconfig: %v", host, err)
	case strings.Contains(err.Error(), "getting credentials"): // an exec plugin of client-go
		return failed(logIn, "the kubeconfig's command gives no credentials for %s: %s", host, firstLine(err))
	case errors.As(err, &untrusted):
		return failed(check.NewFix("use the kubeconfig that the cluster's administrator or cloud gives: its "+
			"certificate-authority-data belongs to another cluster, or a proxy is in between"),
			"the kubeconfig does not trust the certificate of %s: %v", host, err)
	}
	return failed(
		check.NewFix("check the kubeconfig and its context, this machine's network (VPN, proxy), and whether the API server is up",
			check.Command{"kubectl", "cluster-info"}),
		"the cluster does not answer at %s: %v", host, err)
}

// firstLine returns the error without the advice that client-go adds below it.
func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

func (x *runner) policyFinding(err error) check.Finding {
	if err == nil {
		return passed("%s: destinations %s", x.source, names(x.policy.Destinations))
	}
	x.policy = nil
	fix := check.NewFix("correct the policy, and validate it")
	if x.source.file != "" {
		fix.Commands = []check.Command{{"ampbridge", "validate", x.source.file}}
	}
	return failed(fix, "%s", strings.ReplaceAll(err.Error(), "\n", "; "))
}

// installedPolicy reads the policy of the installation.
func (x *runner) installedPolicy(ctx context.Context) check.Finding {
	found, err := kube.Policies(ctx, x.cluster.client, x.System)
	if err != nil {
		return unproven(check.NewFix("pass the policy's file with --policy, or get the right to list ConfigMaps in "+x.System),
			"the policy could not be read: the ConfigMaps of %s cannot be listed: %v", x.System, err)
	}
	install := check.NewFix(
		"install ampbridge in that namespace, or pass its namespace with --system-namespace, or the policy's file with --policy",
	)
	switch len(found) {
	case 0:
		return failed(install, "namespace %s has no ConfigMap with the label %s and the key %s", x.System, kube.Selector, kube.PolicyKey)
	case 1:
	default:
		var several []string
		for _, p := range found {
			several = append(several, p.ConfigMap)
		}
		return failed(
			check.NewFix("pass the policy's file with --policy"),
			"namespace %s has several policies: %s",
			x.System,
			strings.Join(several, ", "),
		)
	}
	x.source = policySource{namespace: x.System, configMap: found[0].ConfigMap}
	x.policy, err = policy.Parse([]byte(found[0].Text))
	x.checks.Head.PolicyRevision = revision([]byte(found[0].Text))
	return x.policyFinding(err)
}

// issuer returns the issuer in the API server's discovery document.
func (c *cluster) issuer(ctx context.Context) (policy.Issuer, error) {
	data, err := c.client.Discovery().RESTClient().Get().AbsPath("/.well-known/openid-configuration").DoRaw(ctx)
	if err != nil {
		return "", err
	}
	// The issuer is read as text, because one that AWS could not register is a finding, not an error.
	var document struct {
		Issuer string `json:"issuer"`
	}
	err = json.Unmarshal(data, &document)
	return policy.Issuer(document.Issuer), err
}

// namespace returns a namespace, or an empty object and the error.
func (c *cluster) namespace(ctx context.Context, name string) (corev1.Namespace, error) {
	ns, err := c.client.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return corev1.Namespace{}, err
	}
	return *ns, nil
}

func (c *cluster) serviceAccountAnnotations(ctx context.Context, s policy.Subject) (map[string]string, error) {
	sa, err := c.client.CoreV1().ServiceAccounts(s.Namespace).Get(ctx, s.ServiceAccount, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	return sa.Annotations, nil
}

// namespaceNames returns the names of the namespaces that the options select.
func (c *cluster) namespaceNames(ctx context.Context, options metav1.ListOptions) ([]string, error) {
	list, err := c.client.CoreV1().Namespaces().List(ctx, options)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(list.Items))
	for i, ns := range list.Items {
		names[i] = ns.Name
	}
	return names, nil
}

// labelledNamespaces returns the names of the namespaces with the label.
func (c *cluster) labelledNamespaces(ctx context.Context) ([]string, error) {
	names, err := c.namespaceNames(ctx, metav1.ListOptions{LabelSelector: policy.LabelInjection})
	if err != nil {
		return nil, fmt.Errorf("the labelled namespaces cannot be listed: %w", err)
	}
	return names, nil
}

// labelledAccounts returns the service accounts of labelled namespaces.
func (c *cluster) labelledAccounts(ctx context.Context) ([]policy.Subject, error) {
	var list []policy.Subject
	namespaces, err := c.labelledNamespaces(ctx)
	if err != nil {
		return nil, err
	}
	for _, ns := range namespaces {
		for options := (metav1.ListOptions{Limit: pageSize}); ; {
			page, err := c.client.CoreV1().ServiceAccounts(ns).List(ctx, options)
			if err != nil {
				return nil, fmt.Errorf("the service accounts of %s cannot be listed: %w", ns, err)
			}
			for _, sa := range page.Items {
				list = append(list, policy.Subject{Namespace: ns, ServiceAccount: sa.Name})
			}
			if options.Continue = page.Continue; options.Continue == "" {
				break
			}
		}
	}
	return list, nil
}

func (x *runner) namespaceFinding(ctx context.Context, name string, ns corev1.Namespace, err error) check.Finding {
	label := check.Command{
		"kubectl",
		"label",
		"namespace",
		name,
		"--overwrite",
		policy.LabelInjection + "=" + string(policy.InjectionEnabled),
	}
	value, labelled := ns.Labels[policy.LabelInjection]
	switch {
	case apierrors.IsNotFound(err):
		fix := check.NewFix("create the namespace and label it", check.Command{"kubectl", "create", "namespace", name}, label)
		near := x.nearNamespaces(ctx, name)
		if near != "" { // no command, because creating a mistyped namespace would hide the mistake
			fix = check.NewFix("correct the namespace in the grant of the policy, or the flag --namespace; or create it and label it")
		}
		return failed(fix, "namespace %s does not exist%s", name, near)
	case err != nil:
		return skipped("namespace %s cannot be read: %v", name, err)
	case ns.DeletionTimestamp != nil:
		return failed(check.NewFix("wait until the namespace is deleted, or find out what blocks the deletion",
			check.Command{"kubectl", "describe", "namespace", name}),
			"namespace %s has been terminating since %s", name, ns.DeletionTimestamp.UTC().Format(time.RFC3339))
	case slices.Contains([]string{metav1.NamespaceSystem, metav1.NamespacePublic, corev1.NamespaceNodeLease, x.System}, name):
		return failed(check.NewFix("run Prometheus in another namespace"),
			"the webhook is never called for pods in namespace %s, whatever its label is", name)
	case !labelled:
		return failed(
			check.NewFix("label the namespace, and restart Prometheus", label),
			"namespace %s does not carry the label %s: the webhook is not called for it",
			name,
			policy.LabelInjection,
		)
	case value != string(policy.InjectionEnabled) && value != string(policy.InjectionAnnotated):
		return failed(
			check.NewFix("set the label to enabled or annotated", label),
			"the label %s of namespace %s is %q",
			policy.LabelInjection,
			name,
			value,
		)
	}
	return passed("%s carries %s=%s", name, policy.LabelInjection, value)
}

// nearNamespaces returns a question with the namespaces that resemble a name; empty: there
// are none, or they cannot be listed.
func (x *runner) nearNamespaces(ctx context.Context, name string) string {
	names, err := x.cluster.namespaceNames(ctx, metav1.ListOptions{Limit: pageSize})
	if err != nil {
		return ""
	}
	return usage.DidYouMean("", name, names)
}

// annotateAccount returns the command that changes an annotation of a service account.
func annotateAccount(s policy.Subject, annotation string) check.Command {
	return check.Command{
		"kubectl", "annotate", "serviceaccount", s.ServiceAccount, "--namespace", s.Namespace, "--overwrite", annotation,
	}
}

func serviceAccountFinding(s policy.Subject, labels, annotations map[string]string, err error) check.Finding {
	annotate := func(suffix string) check.Command { return annotateAccount(s, policy.AnnotationInject+suffix) }
	switch value := annotations[policy.AnnotationInject]; {
	case apierrors.IsNotFound(err):
		return failed(
			check.NewFix(
				"create the service account, or name the one that Prometheus uses in the grant",
				check.Command{"kubectl", "create", "serviceaccount", s.ServiceAccount, "--namespace", s.Namespace},
			),
			"service account %s does not exist in namespace %s",
			s.ServiceAccount,
			s.Namespace,
		)
	case err != nil:
		return skipped("service account %s/%s cannot be read: %v", s.Namespace, s.ServiceAccount, err)
	case value == "false":
		return failed(
			check.NewFix("remove the annotation", annotate("-")),
			"%s/%s has opted out: annotation %s=false",
			s.Namespace,
			s.ServiceAccount,
			policy.AnnotationInject,
		)
	case value != "" && value != "true":
		return failed(
			check.NewFix("set the annotation to true or false", annotate("=true")),
			"annotation %s of %s/%s is %q",
			policy.AnnotationInject,
			s.Namespace,
			s.ServiceAccount,
			value,
		)
	case value == "" && labels[policy.LabelInjection] == string(policy.InjectionAnnotated):
		f := warned(
			check.NewFix("annotate the service account, or its pods", annotate("=true")),
			"the namespace injects only with an annotation (%s=annotated), and %s/%s has none: its pods need it",
			policy.LabelInjection,
			s.Namespace,
			s.ServiceAccount,
		)
		f.Proof = check.Pods
		return f
	}
	return passed("the service account exists")
}

// grantFinding asks the policy for a decision, as the webhook does. It also returns the
// granted destinations.
func grantFinding(
	p *policy.Policy,
	s policy.Subject,
	labels, annotations map[string]string,
	source policySource,
) (check.Finding, []policy.Destination) {
	// Earlier checks judge the label and the annotation. This one assumes that they allow injection.
	injection := policy.Injection(labels[policy.LabelInjection])
	if injection != policy.InjectionAnnotated {
		injection = policy.InjectionEnabled
	}
	effective := map[string]string{}
	maps.Copy(effective, annotations)
	effective[policy.AnnotationInject] = "true"
	d := p.Decide(
		policy.Request{
			Namespace:                 s.Namespace,
			Injection:                 injection,
			ServiceAccount:            s.ServiceAccount,
			Account:                   true,
			ServiceAccountAnnotations: effective,
		},
	)
	switch d.Reason {
	case policy.Granted:
		return passed("it may write to %s", names(d.Destinations)), d.Destinations
	case policy.Paused:
		return failed(
			check.NewFix("in the policy ("+source.String()+"), write paused: false"),
			"the policy is paused: nothing new is injected",
		), nil
	case policy.NotGranted:
		return failed(
			check.NewFix(
				fmt.Sprintf(
					"in the policy (%s), add to grants: {namespaces: [%s], serviceAccounts: [%s], destinations: [%s]}",
					source,
					s.Namespace,
					s.ServiceAccount,
					p.Destinations[0].Name,
				),
			),
			"no grant of the policy covers %s/%s",
			s.Namespace,
			s.ServiceAccount,
		), nil
	case policy.UnknownDestination:
		return failed(
			check.NewFix(
				"correct the annotation",
				annotateAccount(s, policy.AnnotationDestinations+"-"),
			),
			"%s",
			d.Warning,
		), nil
	}
	return failed(check.NewFix("follow the warning"), "%s: %s", d.Reason, d.Warning), nil
}

func names(destinations []policy.Destination) string {
	list := make([]string, len(destinations))
	for i, d := range destinations {
		list[i] = d.Name
	}
	return strings.Join(list, ", ")
}

// forbidden reports whether the API server refused the caller.
func forbidden(err error) bool {
	return apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err)
}
