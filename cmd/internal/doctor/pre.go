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
	"github.com/ampbridge/ampbridge/webhook/inject"
	"github.com/ampbridge/ampbridge/webhook/registration"
)

// notYet is why checks are excluded before the installation.
const notYet = "not checked before the installation (--pre)"

// oldestKubernetes is the chart's kubeVersion: native sidecars are on by default since
// 1.29, and match conditions of webhooks are stable since 1.30.
var oldestKubernetes = version.MustParseGeneric("1.30")

// beforeInstallation checks what an installation needs: it runs the checks that depend on
// nothing that the installation makes. The checks of the webhook, the provider and the
// role ask whether they can be made, and the check of the pods whether they would be
// injected.
func (x *runner) beforeInstallation(ctx context.Context) {
	x.checkCluster(ctx)
	if x.policy == nil {
		x.checks.Complete(x.noPolicy())
		return
	}
	x.checks.Cluster = x.policy.Cluster.Name
	x.checkIssuer(ctx)
	x.checkSubjects(ctx)
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

// made are the objects of the chart that few people may create.
var made = []authorizationv1.ResourceAttributes{
	{Group: "admissionregistration.k8s.io", Resource: "mutatingwebhookconfigurations"},
	{Group: "admissionregistration.k8s.io", Resource: "validatingwebhookconfigurations"},
	{Group: "admissionregistration.k8s.io", Resource: "validatingadmissionpolicies"},
	{Group: "admissionregistration.k8s.io", Resource: "validatingadmissionpolicybindings"},
	{Group: "rbac.authorization.k8s.io", Resource: "clusterroles"},
	{Group: "rbac.authorization.k8s.io", Resource: "clusterrolebindings"},
	{Group: "apps", Resource: "deployments"},
	{Resource: "configmaps"},
	{Resource: "secrets"},
	{Resource: "serviceaccounts"},
	{Resource: "services"},
}

// mayInstall asks the API server whether the caller may create the chart's objects.
func (x *runner) mayInstall(ctx context.Context) check.Finding {
	var denied []string
	for _, attributes := range made {
		attributes.Verb = "create"
		if !strings.Contains(attributes.Group, ".k8s.io") {
			attributes.Namespace = x.System
		}
		review, err := x.cluster.client.AuthorizationV1().SelfSubjectAccessReviews().Create(
			ctx,
			&authorizationv1.SelfSubjectAccessReview{
				Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &attributes},
			},
			metav1.CreateOptions{},
		)
		if err != nil {
			return skipped("the API server does not say what you may create: %v", err)
		}
		if !review.Status.Allowed {
			denied = append(denied, attributes.Resource)
		}
	}
	if len(denied) > 0 {
		return failed(check.NewFix("install as an administrator of the cluster"),
			"you may not create %s, which the chart has", strings.Join(denied, ", "))
	}
	_, err := x.cluster.client.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(
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
	return passed("not installed yet, and you may create everything that the chart has")
}

// checkCandidates checks whether the running Prometheus pods of a subject would be
// injected when they are replaced.
func (x *runner) checkCandidates(ctx context.Context, s *subject) {
	pods, err := x.prometheusPods(ctx, s)
	switch {
	case err != nil:
		x.checks.Skip(s.about, "the pods cannot be listed: "+err.Error(), check.Pods)
	case len(pods) == 0:
		x.checks.Skip(s.about, "no Prometheus pod of this service account is running", check.Pods)
	}
	for _, pod := range pods {
		x.checks.Run(check.Pods, pod.about, func() check.Finding { return x.candidate(s, pod.Pod) })
	}
}

// candidate decides about a pod as the webhook will.
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
		Prometheus:     true, Account: true, ServiceAccountAnnotations: s.annotations, PodAnnotations: pod.Annotations,
		Workload: inject.Workload(converted),
	})
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

// checkEmptyAccount checks the account for what sync makes in it.
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
		if x.issuer == "" {
			return skipped("the issuer is not known")
		}
		found, err := inspector.Provider(ctx, target.Provider)
		switch {
		case err != nil:
			return skipped("%v", err)
		case found != nil:
			return passed("%s exists already", target.Provider)
		case headroomErr != nil:
			return skipped("the quotas cannot be read: %v", headroomErr)
		}
		return check.Room("OIDC providers", "L-858F3967", headroom.Providers, 1)
	})
	x.checks.Run(check.RoleExists, about, func() check.Finding {
		if headroomErr != nil {
			return skipped("the quotas cannot be read: %v", headroomErr)
		}
		return check.Room("roles", "L-FE177D64", headroom.Roles, x.rolesToMake(ctx, inspector, target.Account))
	})
	x.checks.Run(check.Boundary, about, func() check.Finding {
		wanted := x.policy.Boundary(x.policy.Role(d).Partition, target.Account)
		if !x.managed(d) || wanted.IsZero() {
			return check.Excluded("", check.About{}, "sync makes no role with a boundary here")
		}
		document, err := inspector.Document(ctx, wanted.String())
		if err != nil {
			return failed(
				check.NewFix("make the permissions boundary and sync's own role: run bootstrap as an administrator of the account",
					check.Command{"ampbridge", "bootstrap", "--policy", x.Policy, "--account", target.Account, "--apply"}),
				"the permissions boundary %s cannot be read: %v",
				wanted,
				err,
			)
		}
		return check.Bounds(check.BoundaryState{ARN: wanted.String(), Document: &document}, wanted.String(), d,
			x.syncFix(), x.source.bootstrap(target.Account))
	})
}

// rolesToMake counts the roles of an account that sync would create.
func (x *runner) rolesToMake(ctx context.Context, i *awsiam.Inspector, account string) (n int) {
	for _, d := range x.policy.Destinations {
		for _, r := range x.rolesOf(d) {
			if r.arn.Account != account || !x.managed(d) {
				continue
			}
			if role, err := i.Role(ctx, r.arn.RoleName()); err == nil && role == nil {
				n++
			}
		}
	}
	return n
}
