package doctor

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/ampbridge/ampbridge/cmd/internal/kube"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/check"
)

// probeTimeout bounds one probe, so that a probe that hangs becomes a finding.
const probeTimeout = 20 * time.Second

// runner runs the checks.
type runner struct {
	Options
	stdin  io.Reader
	checks check.Runner

	cluster *cluster // nil: none
	policy  *policy.Policy
	// source is the origin of the policy.
	source   policySource
	issuer   policy.Issuer
	subjects []*subject
	// syncWorkload is what runs sync, such as deployment/ampbridge-sync; empty: nothing in the
	// cluster, or it is not known.
	syncWorkload string
	// published is what the issuer publishes.
	published check.Published
}

// subject is a service account, and what the checks found about it.
type subject struct {
	policy.Subject
	about check.About
	// labels are those of its namespace, annotations its own.
	labels, annotations map[string]string
	// destinations are those of its grants, without those that it opted out of.
	destinations []policy.Destination
	// named is true if a grant or a flag names it without a wildcard.
	named bool
	// token is a secret: only STS gets it.
	token  string
	claims check.Claims
	// sessions are the sessions by destination. They are secrets too.
	sessions map[string]aws.CredentialsProvider
}

// noCluster is the reason for skipping the checks of Kubernetes.
const noCluster = "no cluster"

// noPolicy returns the reason for skipping the checks that need a policy.
func (x *runner) noPolicy() string {
	if x.checks.Report().Status(check.Policy) == check.Fail {
		return "the policy is not valid"
	}
	return "the policy could not be read"
}

// start checks the cluster, the policy and the subjects. It returns false if there is no policy.
func (x *runner) start(ctx context.Context) bool {
	x.checkCluster(ctx)
	if x.policy == nil {
		return false
	}
	x.checks.Cluster = x.policy.Cluster.Name
	x.checkIssuer(ctx)
	x.checkSubjects(ctx)
	return true
}

// inCluster runs all checks from outside the pods.
func (x *runner) inCluster(ctx context.Context) {
	if !x.start(ctx) {
		if x.cluster != nil {
			x.checkWebhook(ctx)
		}
		x.checks.Complete(x.noPolicy())
		return
	}
	if x.cluster != nil {
		x.checkWebhook(ctx)
		for _, s := range x.subjects {
			x.checkInjection(ctx, s)
		}
		for _, s := range x.subjects {
			x.checks.Run(check.TokenMinted, s.about, func() check.Finding { return x.mintToken(ctx, s) })
		}
	} else {
		x.checks.Skip(check.About{}, noCluster, check.Registration, check.Endpoints, check.Certificate, check.Injection, check.TokenMinted)
	}
	x.checkSync(ctx)
	x.checkKeys(ctx)
	x.checkAWS(ctx)
	x.checkPods(ctx)
	if !x.checks.Has(check.Read) {
		x.checks.Add(check.Excluded(check.Read, check.About{}, "no checked service account has a destination with access: [query]"))
	}
	x.checks.Complete("no service account is known to check it for")
}

// checkInjection creates a pod in a dry run. A pod that is injected also proves the certificate.
func (x *runner) checkInjection(ctx context.Context, s *subject) {
	var f check.Finding
	x.checks.Run(check.Injection, s.about, func() check.Finding {
		f = x.dryRun(ctx, s)
		return f
	})
	if f.Status == check.Pass {
		x.checks.Prove(check.Certificate, check.About{},
			"the API server called the webhook in the dry run, and it verifies the certificate with the bundle")
	}
}

// checkIssuer compares the API server's issuer with the policy's. Without a cluster
// it uses the policy's.
func (x *runner) checkIssuer(ctx context.Context) {
	if x.cluster == nil {
		x.issuer = x.policy.Cluster.Issuer
		if x.issuer == "" {
			x.checks.Skip(check.About{}, "the policy does not set cluster.issuer, and there is no cluster", check.IssuerMatches)
			return
		}
		// The policy's issuer is enough for the checks of AWS if the API server is down.
		x.checks.Add(check.Skipped(check.IssuerMatches, check.About{}, "doctor uses the policy's issuer: there is no cluster to compare it with"))
		return
	}
	x.checks.Run(check.IssuerMatches, check.About{}, func() check.Finding {
		issuer, err := x.cluster.issuer(ctx)
		if err != nil {
			x.issuer = x.policy.Cluster.Issuer
			return skipped("the API server's discovery document cannot be read: %v", err)
		}
		x.issuer = issuer
		return check.Issuer(x.policy.Cluster.Issuer, issuer)
	})
}

// checkKeys reads the issuer as AWS would. One token is enough: all are signed
// with the same key.
func (x *runner) checkKeys(ctx context.Context) {
	if x.issuer == "" {
		x.checks.Skip(check.About{}, "the issuer is not known", check.SigningKeys)
		return
	}
	var token string
	var claims check.Claims
	var ask func() *check.Refusal
	for _, s := range x.subjects {
		if s.token != "" && len(s.destinations) > 0 {
			token, claims = s.token, s.claims
			ask = func() *check.Refusal {
				_, refused := x.exchange(s, s.destinations[0]).session(ctx, token)
				return refused
			}
			break
		}
	}
	x.checks.Run(check.SigningKeys, check.About{}, func() check.Finding { return x.keys(ctx, x.issuer, token, claims, ask) })
}

// keys reads the issuer from this machine. If that fails, AWS may still be able to read the
// issuer, because AWS is in another network. ask sends STS the token and returns its refusal; nil: there is no
// token to send.
func (x *runner) keys(
	ctx context.Context,
	issuer policy.Issuer,
	token string,
	claims check.Claims,
	ask func() *check.Refusal,
) check.Finding {
	x.published = readIssuer(ctx, issuer, token)
	if x.published.Problem != "" && ask != nil {
		refused := ask()
		switch {
		case refused == nil && !x.published.Unreached:
			return warned(check.PublishKeys,
				"STS accepts the token, perhaps with keys that AWS read earlier; the next time, AWS will get this answer, too: %s",
				x.published.Problem)
		case refused == nil:
			return passed("AWS has read the keys: STS accepts the token (from this machine: %s)", x.published.Problem)
		case refused.Unread():
			x.published.Unreached = false
			x.published.Problem += "; AWS cannot read it either: " + refused.String()
		}
	}
	return check.Keys(issuer, x.published, claims)
}

// checkSubjects finds the granted subjects and checks each of them.
func (x *runner) checkSubjects(ctx context.Context) {
	if x.cluster == nil {
		x.checks.Skip(check.About{}, noCluster, check.Namespace, check.ServiceAccount)
		// The grants can be checked without a cluster.
		for _, named := range x.literalSubjects() {
			s := x.addSubject(named, nil)
			x.checks.Run(check.Grant, s.about, func() check.Finding {
				finding, _ := grantFinding(x.policy, named, nil, nil, x.source)
				return finding
			})
		}
		return
	}
	subjects, err := x.chosenSubjects(ctx)
	if err != nil {
		x.checks.Skip(check.About{}, err.Error(), check.Namespace, check.ServiceAccount, check.Grant)
		return
	}
	if len(subjects) == 0 {
		x.checks.Add(x.noSubjects(ctx)...)
		return
	}
	for _, s := range subjects {
		x.checkSubject(ctx, s)
	}
}

func (x *runner) addSubject(s policy.Subject, labels map[string]string) *subject {
	added := &subject{Subject: s, about: check.About{Subject: s.String()}, labels: labels, named: slices.Contains(x.literalSubjects(), s)}
	if e, ok := x.policy.Entitled(s); ok {
		added.destinations = e.Destinations
	}
	x.subjects = append(x.subjects, added)
	return added
}

// noSubjects returns the findings about namespaces, service accounts and grants if there is no
// service account to check.
func (x *runner) noSubjects(ctx context.Context) []check.Finding {
	all := check.About{}
	discover := check.NewFix("add a grant for the service account of your Prometheus to the policy: discover prints it",
		check.Command{"ampbridge", "discover"})
	if x.Namespace != "" {
		ns, err := x.cluster.namespace(ctx, x.Namespace)
		found := x.namespaceFinding(ctx, x.Namespace, ns, err).For(check.Namespace, all)
		if found.Status != check.Pass {
			return []check.Finding{found}
		}
		return []check.Finding{found, check.Failed(check.Grant, all, discover,
			"no grant covers a service account of namespace %s", x.Namespace)}
	}
	labelled, err := x.cluster.labelledNamespaces(ctx)
	if err != nil || len(labelled) == 0 {
		return []check.Finding{check.Failed(check.Namespace, all, check.NewFix("label the namespace of your Prometheus",
			check.Command{"kubectl", "label", "namespace", "NAMESPACE", policy.LabelInjection + "=" + string(policy.InjectionEnabled)}),
			"no service account that a grant covers is in a namespace with the label %s", policy.LabelInjection)}
	}
	names := strings.Join(labelled, ", ")
	findings := []check.Finding{
		check.Passed(check.Namespace, all, "with the label: %s", names),
		check.Failed(check.Grant, all, discover, "no grant covers a service account of the labelled namespaces: %s", names),
	}
	if len(x.policy.Grants) == 0 {
		findings[1].Message = "the policy has no grants"
	}
	if accounts, err := x.cluster.labelledAccounts(ctx); err == nil && len(accounts) > 0 {
		findings = append(findings, check.Passed(check.ServiceAccount, all, "the labelled namespaces have %d", len(accounts)))
	}
	return findings
}

func (x *runner) checkSubject(ctx context.Context, named policy.Subject) {
	ns, namespaceErr := x.cluster.namespace(ctx, named.Namespace)
	annotations, accountErr := x.cluster.serviceAccountAnnotations(ctx, named)
	if annotations[policy.AnnotationInject] == "false" && !slices.Contains(x.literalSubjects(), named) {
		// A service account that only a wildcard covers may opt out.
		x.checks.Add(check.Excluded(check.ServiceAccount, check.About{Subject: named.String()}, "it has opted out (annotation %s)",
			policy.AnnotationInject))
		return
	}
	labels := ns.Labels
	s := x.addSubject(named, labels)
	x.checks.Run(check.Namespace, s.about, func() check.Finding {
		return x.namespaceFinding(ctx, named.Namespace, ns, namespaceErr)
	})
	s.annotations = annotations
	if apierrors.IsNotFound(namespaceErr) {
		x.checks.Add(check.BlockedBy(check.ServiceAccount, s.about, check.Namespace)) // it cannot exist either
	} else {
		x.checks.Run(check.ServiceAccount, s.about, func() check.Finding {
			return serviceAccountFinding(named, labels, annotations, accountErr)
		})
	}
	x.checks.Run(check.Grant, s.about, func() check.Finding {
		finding, destinations := grantFinding(x.policy, named, labels, annotations, x.source)
		if destinations != nil {
			s.destinations = destinations
		}
		return finding
	})
}

// literalSubjects returns the subjects that the grants name without a wildcard.
func (x *runner) literalSubjects() []policy.Subject {
	if x.ServiceAccount != "" {
		return []policy.Subject{{Namespace: x.Namespace, ServiceAccount: x.ServiceAccount}}
	}
	var list []policy.Subject
	for _, g := range x.policy.Grants {
		for _, s := range literal(g) {
			if (x.Namespace == "" || s.Namespace == x.Namespace) && !slices.Contains(list, s) {
				list = append(list, s)
			}
		}
	}
	return list
}

func literal(g policy.Grant) []policy.Subject {
	var list []policy.Subject
	for _, ns := range g.Namespaces {
		for _, sa := range g.ServiceAccounts {
			if !strings.Contains(string(ns)+string(sa), "*") {
				list = append(list, policy.Subject{Namespace: string(ns), ServiceAccount: string(sa)})
			}
		}
	}
	return list
}

// forgotten reports whether a service account of a grant exists in a namespace without the
// label.
func (x *runner) forgotten(ctx context.Context, s policy.Subject) bool {
	ns, err := x.cluster.namespace(ctx, s.Namespace)
	if _, labelled := ns.Labels[policy.LabelInjection]; err != nil || labelled {
		return false
	}
	_, err = x.cluster.serviceAccountAnnotations(ctx, s)
	return err == nil
}

// chosenSubjects returns the subjects to check. With --service-account that is one. Otherwise
// they are the existing service accounts with a grant, in labelled namespaces or named by the
// grant. A grant that covers no existing service account adds all subjects that it names.
func (x *runner) chosenSubjects(ctx context.Context) ([]policy.Subject, error) {
	if x.ServiceAccount != "" {
		return x.literalSubjects(), nil
	}
	existing, err := x.cluster.labelledAccounts(ctx)
	if err != nil {
		return nil, err
	}
	var list []policy.Subject
	add := func(s policy.Subject) {
		if (x.Namespace == "" || s.Namespace == x.Namespace) && !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	for _, g := range x.policy.Grants {
		alone := policy.Policy{Grants: []policy.Grant{g}, Destinations: x.policy.Destinations}
		found := false
		for _, s := range existing {
			if _, ok := alone.Entitled(s); ok {
				found = true
				add(s)
			}
		}
		for _, s := range literal(g) {
			if !found || x.forgotten(ctx, s) {
				add(s)
			}
		}
	}
	return list, nil
}

// passed, failed, warned and skipped return a finding. [check.Runner.Run] adds its ID
// and its object.
func passed(format string, args ...any) check.Finding {
	return check.Passed("", check.About{}, format, args...)
}

func failed(fix check.Fix, format string, args ...any) check.Finding {
	return check.Failed("", check.About{}, fix, format, args...)
}

func warned(fix check.Fix, format string, args ...any) check.Finding {
	return check.Warned("", check.About{}, fix, format, args...)
}

func skipped(format string, args ...any) check.Finding {
	return check.Skipped("", check.About{}, format, args...)
}

// unproven returns a skipped finding. With the fix, the check can run.
func unproven(fix check.Fix, format string, args ...any) check.Finding {
	f := skipped(format, args...)
	f.Fix = &fix
	return f
}

// policySource is the origin of the policy.
type policySource struct {
	// file is the path; empty: a ConfigMap of the installation.
	file                 string
	namespace, configMap string
}

func (s policySource) String() string {
	if s.file != "" {
		return s.file
	}
	return fmt.Sprintf("ConfigMap %s/%s", s.namespace, s.configMap)
}

// bootstrap returns the fix that runs bootstrap again for an account.
func (s policySource) bootstrap(account string) check.Fix {
	file := s.file
	if file == "" {
		file = "policy.yaml"
	}
	return check.NewFix("run bootstrap again, as an administrator of the account: the boundary is older than "+
		"access: [query] in the policy; writes continue meanwhile",
		check.Command{"ampbridge", "bootstrap", "--policy", file, "--account", account, "--apply"})
}

// syncFix returns the fix that runs sync. The command depends on the workload that runs it.
func (x *runner) syncFix() check.Fix {
	s := x.source
	if s.file != "" {
		return check.NewFix("let sync update AWS to match the policy", check.Command{"ampbridge", "sync", "--once", "--policy", s.file})
	}
	kind, name, _ := strings.Cut(x.syncWorkload, "/")
	switch kind {
	case "deployment":
		return check.NewFix("sync fixes this in its next pass; if it cannot, its log shows why",
			check.Command{"kubectl", "rollout", "restart", "deployment", "--namespace", s.namespace, "--selector", kube.SyncSelector})
	case "cronjob":
		return check.NewFix("the next run of sync fixes this; if it cannot, its log shows why",
			check.Command{"kubectl", "create", "job", "--namespace", s.namespace, "--from", "cronjob/" + name, name + "-now"})
	}
	return check.NewFix("nothing in the cluster runs sync: write the installed policy to policy.yaml, and run sync",
		check.Command{"ampbridge", "sync", "--once", "--policy", "policy.yaml"})
}
