package doctor

import (
	"cmp"
	"context"
	"slices"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/version"

	"github.com/ampbridge/ampbridge/cmd/internal/awsiam"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/check"
	"github.com/ampbridge/ampbridge/policy/plan"
	"github.com/ampbridge/ampbridge/webhook/inject"
	"github.com/ampbridge/ampbridge/webhook/registration"
)

// notYet is the reason for excluding checks before the installation.
const notYet = "not checked before the installation (--pre)"

// oldestKubernetes is the chart's kubeVersion: native sidecars are on by default since
// 1.29, and match conditions of webhooks are stable since 1.30.
var oldestKubernetes = version.MustParseGeneric("1.30")

// beforeInstallation checks what an installation needs. The checks of the registration, the
// provider and the role report whether these can be created. The check of the pods reports
// whether they would be injected. Checks that need an installation are excluded.
func (x *runner) beforeInstallation(ctx context.Context) {
	if !x.start(ctx) {
		x.checks.Complete(x.noPolicy())
		return
	}
	if x.cluster != nil {
		x.checks.Run(check.Registration, check.About{}, func() check.Finding { return x.mayInstall(ctx) })
		for _, s := range x.subjects {
			x.checks.Run(check.TokenMinted, s.about, func() check.Finding { return x.mintToken(ctx, s) })
		}
		for _, s := range x.subjects {
			x.checkCandidates(ctx, s)
		}
	} else {
		x.checks.Skip(check.About{}, noCluster, check.Registration, check.TokenMinted, check.Pods)
	}
	x.checkKeys(ctx)
	me := callerIdentity(ctx, x.policy.Destinations[0].Workspace.Region)
	var accounts []string
	for _, d := range x.policy.Destinations {
		if account := x.policy.Role(d).Account; !slices.Contains(accounts, account) {
			accounts = append(accounts, account)
			x.checkEmptyAccount(ctx, me, d)
		}
		x.checkWorkspace(ctx, me, d)
		x.checkQuery(ctx, me, d)
	}
	for _, c := range check.All {
		if !x.checks.Has(c.ID) {
			x.checks.Add(check.Excluded(c.ID, check.About{}, notYet))
		}
	}
}

// tooOld judges the version of the API server.
func tooOld(gitVersion string) (check.Finding, bool) {
	v, err := version.ParseGeneric(gitVersion)
	if err != nil || v.AtLeast(oldestKubernetes) {
		return check.Finding{}, false
	}
	return failed(check.NewFix("upgrade the cluster: ampbridge needs Kubernetes "+oldestKubernetes.String()+" or newer"),
		"the API server is %s", gitVersion), true
}

// chartResource is a resource of the objects that the chart has.
type chartResource struct {
	group, name string
	// cluster is true if its objects are in no namespace.
	cluster bool
	// further are verbs that only this resource needs.
	further []string
}

// chartResources are the resources of the chart's objects. They do not include resources of
// optional APIs (cert-manager, the Prometheus operator) and resources that are off by default
// (NetworkPolicy, CronJob). Helm keeps its releases in Secrets.
var chartResources = []chartResource{
	{group: "admissionregistration.k8s.io", name: "mutatingwebhookconfigurations", cluster: true},
	{group: "admissionregistration.k8s.io", name: "validatingwebhookconfigurations", cluster: true},
	{group: "admissionregistration.k8s.io", name: "validatingadmissionpolicies", cluster: true},
	{group: "admissionregistration.k8s.io", name: "validatingadmissionpolicybindings", cluster: true},
	{group: "rbac.authorization.k8s.io", name: "clusterroles", cluster: true},
	{group: "rbac.authorization.k8s.io", name: "clusterrolebindings", cluster: true},
	{group: "rbac.authorization.k8s.io", name: "roles"},
	{group: "rbac.authorization.k8s.io", name: "rolebindings"},
	{group: "apps", name: "deployments"},
	{group: "policy", name: "poddisruptionbudgets"},
	{name: "configmaps"},
	{name: "resourcequotas"},
	{name: "secrets", further: []string{"list", "update"}},
	{name: "serviceaccounts"},
	{name: "services"},
}

// installVerbs are the verbs that Helm needs for every object, to install, upgrade and
// uninstall the chart.
var installVerbs = []string{"create", "get", "patch", "delete"}

// may asks the API server whether the caller has a right.
func (x *runner) may(ctx context.Context, right authorizationv1.ResourceAttributes) (bool, error) {
	review, err := x.cluster.client.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, &authorizationv1.SelfSubjectAccessReview{
		Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &right},
	}, metav1.CreateOptions{})
	if err != nil {
		return false, err
	}
	return review.Status.Allowed, nil
}

// deniedRights returns the rights on the chart's objects that the caller lacks, such as
// "create clusterroles, clusterrolebindings".
func (x *runner) deniedRights(ctx context.Context) (denied []string, err error) {
	// If the caller is an administrator, one answer is enough.
	if all, err := x.may(ctx, authorizationv1.ResourceAttributes{Group: "*", Resource: "*", Verb: "*"}); err != nil || all {
		return nil, err
	}
	byVerb := map[string][]string{}
	for _, r := range chartResources {
		right := authorizationv1.ResourceAttributes{Group: r.group, Resource: r.name}
		if !r.cluster {
			right.Namespace = x.System
		}
		for _, right.Verb = range slices.Concat(installVerbs, r.further) {
			allowed, err := x.may(ctx, right)
			if err != nil {
				return nil, err
			}
			if !allowed {
				byVerb[right.Verb] = append(byVerb[right.Verb], r.name)
			}
		}
	}
	for _, verb := range []string{"create", "get", "patch", "delete", "list", "update"} {
		if len(byVerb[verb]) > 0 {
			denied = append(denied, verb+" "+strings.Join(byVerb[verb], ", "))
		}
	}
	return denied, nil
}

// mayInstall checks whether the caller may install the chart, and whether it is installed.
func (x *runner) mayInstall(ctx context.Context) check.Finding {
	denied, err := x.deniedRights(ctx)
	if err != nil {
		return skipped("the API server does not show what you may do: %v", err)
	}
	if len(denied) > 0 {
		return failed(check.NewFix("install as an administrator of the cluster, or get these rights"),
			"you may not %s, which the installation needs", strings.Join(denied, "; "))
	}
	_, err = x.cluster.client.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(
		ctx,
		registration.DefaultName,
		metav1.GetOptions{},
	)
	if err == nil {
		return warned(check.NewFix("run doctor without --pre", check.Command{"ampbridge", "doctor"}),
			"ampbridge is installed already: there is a MutatingWebhookConfiguration %s", registration.DefaultName)
	} else if !apierrors.IsNotFound(err) {
		return skipped("the MutatingWebhookConfiguration %s cannot be read: %v", registration.DefaultName, err)
	}
	return passed("not installed yet, and you may do everything that the installation needs")
}

// checkCandidates checks whether the running Prometheus pods of a subject would be
// injected when they are replaced.
func (x *runner) checkCandidates(ctx context.Context, s *subject) {
	pods, err := x.prometheusPods(ctx, s)
	switch {
	case err != nil:
		x.checks.Skip(s.about, "the pods cannot be listed: "+err.Error(), check.Pods)
	case len(pods) == 0:
		if other := x.otherPrometheus(ctx, s); s.named && other != nil {
			x.checks.Run(check.Pods, s.about, func() check.Finding { return x.otherAccount(s, other) })
			return
		}
		x.checks.Skip(s.about, "no Prometheus pod of this service account is running", check.Pods)
	}
	for _, pod := range pods {
		x.checks.Run(check.Pods, pod.about, func() check.Finding { return x.candidate(s, pod.Pod) })
	}
}

// candidate decides about a pod as the webhook would.
func (x *runner) candidate(s *subject, pod *corev1.Pod) check.Finding {
	converted, err := convert(pod)
	if err != nil {
		return skipped("%v", err)
	}
	if _, injected := pod.Annotations[inject.AnnotationInjected]; injected {
		return passed("it is injected already")
	}
	decision := x.policy.Decide(policy.Request{
		Namespace: s.Namespace, Injection: policy.Injection(s.labels[policy.LabelInjection]),
		ServiceAccount: s.ServiceAccount,
		Prometheus:     true, ServiceAccountAnnotations: s.annotations, PodAnnotations: pod.Annotations,
		Workload: inject.Workload(converted),
	})
	switch decision.Reason {
	case policy.OptedOut:
		return check.Excluded("", check.About{}, "it opted out (annotation %s)", policy.AnnotationInject)
	case policy.NotAsked:
		return failed(check.NewFix(`write the annotation `+policy.AnnotationInject+`: "true" into the pod template`),
			"it would not be injected: namespace %s has the label %s=%s, and neither the pod nor its service account asks for injection",
			s.Namespace, policy.LabelInjection, policy.InjectionAnnotated)
	}
	var mark inject.Injected
	if decision.Inject {
		operations, after := inject.Inject(converted, decision, inject.Options{Policy: x.policy, Image: "doctor"})
		mark, _ = inject.Marked(operations)
		decision = after
	}
	if !decision.Inject {
		return failed(check.NewFix("follow the warning; ampbridge discover shows all pods"), "it would not be injected: %s",
			cmp.Or(decision.Warning, string(decision.Reason)))
	}
	return passed("it would be injected, for %s: %s", strings.Join(mark.Destinations, ", "), mark)
}

// checkEmptyAccount checks whether sync can create its provider and roles in the account.
func (x *runner) checkEmptyAccount(ctx context.Context, me caller, d policy.Destination) {
	target := x.target(d)
	about := check.About{Account: target.Account}
	iam := awsiam.New(nil)
	var inspector *awsiam.Inspector
	x.checks.Run(check.Account, about, func() check.Finding {
		if me.missing != "" {
			return unproven(me.fix, "%s", me.missing)
		}
		var err error
		if inspector, err = iam.Inspect(ctx, target); err != nil {
			return skipped("%v", err)
		}
		return passed("as %s", me.arn)
	})
	if inspector == nil {
		x.checks.Skip(about, "the account cannot be read", check.OIDCProvider, check.RoleExists, check.Boundary)
		return
	}
	headroom, headroomErr := iam.Headroom(ctx, target.Account, check.ProviderQuota)
	x.checks.Run(check.OIDCProvider, about, func() check.Finding {
		return x.newProvider(ctx, inspector, target, headroom.Providers, headroomErr)
	})
	x.checks.Run(check.RoleExists, about, func() check.Finding {
		if headroomErr != nil {
			return skipped("the quotas cannot be read: %v", headroomErr)
		}
		n, problem := x.rolesToMake(ctx, inspector, target.Account)
		if problem != nil {
			return *problem
		}
		return check.Headroom("roles", "L-FE177D64", headroom.Roles, n)
	})
	x.checks.Run(check.Boundary, about, func() check.Finding { return x.newBoundary(ctx, inspector, d) })
}

// newProvider judges whether sync can create the account's provider, or use the existing one.
// headroom is how many more providers the account may have.
func (x *runner) newProvider(
	ctx context.Context,
	inspector *awsiam.Inspector,
	target plan.Target,
	headroom int,
	headroomErr error,
) check.Finding {
	if x.issuer == "" {
		return skipped("the issuer is not known")
	}
	found, err := inspector.Provider(ctx, target.Provider)
	switch {
	case err != nil:
		return skipped("%v", err)
	case found != nil && !slices.Contains(found.Audiences, x.policy.Token.Audience):
		return failed(check.NewFix("add the audience: sync does not change a provider that it did not create", check.Command{"aws", "iam",
			"add-client-id-to-open-id-connect-provider", "--open-id-connect-provider-arn", target.Provider.String(), "--client-id",
			x.policy.Token.Audience}), "%s exists, and its audiences lack %s", target.Provider, x.policy.Token.Audience)
	case found != nil:
		return passed("%s exists already", target.Provider)
	case headroomErr != nil:
		return skipped("the quotas cannot be read: %v", headroomErr)
	}
	return check.Headroom("OIDC providers", "L-858F3967", headroom, 1)
}

// newBoundary judges the permissions boundary that sync will give the roles that it creates.
func (x *runner) newBoundary(ctx context.Context, inspector *awsiam.Inspector, d policy.Destination) check.Finding {
	role := x.policy.Role(d)
	wanted := x.policy.Boundary(role.Partition, role.Account)
	if !x.managed(d) || wanted.IsZero() {
		return check.Excluded("", check.About{}, "sync creates no role with a boundary in this account")
	}
	document, err := inspector.Document(ctx, wanted.String())
	if err != nil {
		return failed(
			check.NewFix("run bootstrap as an administrator of the account: it creates the permissions boundary and sync's own role",
				check.Command{"ampbridge", "bootstrap", "--policy", x.Policy, "--account", role.Account, "--apply"}),
			"the permissions boundary %s cannot be read: %v",
			wanted,
			err,
		)
	}
	return check.Bounds(check.BoundaryState{ARN: wanted.String(), Document: &document}, wanted.String(), d,
		x.syncFix(), x.source.bootstrap(role.Account))
}

// rolesToMake counts the roles of an account that sync would create. problem is not nil if one of
// their names cannot be read, or has a role that sync did not create.
func (x *runner) rolesToMake(ctx context.Context, i *awsiam.Inspector, account string) (n int, problem *check.Finding) {
	for _, d := range x.policy.Destinations {
		for _, r := range x.rolesOf(d) {
			if r.arn.Account != account || !x.managed(d) {
				continue
			}
			role, err := i.Role(ctx, r.arn.RoleName())
			if err != nil {
				f := skipped("%v", err)
				return n, &f
			}
			if role == nil {
				n++
			} else if f, foreign := x.foreignRole(role); foreign {
				return n, &f
			}
		}
	}
	return n, nil
}
