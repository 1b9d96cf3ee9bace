package reconcile_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ampbridge/ampbridge/cmd/internal/reconcile"
	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/cluster"
	"github.com/ampbridge/ampbridge/test/policytest"
	"github.com/ampbridge/ampbridge/test/testkit"
)

const (
	accountID = "111122223333"
	region    = "eu-west-1"
	roleName  = "ampbridge.dev.central"
	roleARN   = "arn:aws:iam::111122223333:role/ampbridge/dev/ampbridge.dev.central"
	audience  = "sts.amazonaws.com"
)

var policyText = policytest.Granting("prometheus*", "monitoring", "unlabelled")

// bridge is a real cluster and the double of AWS, with an issuer between them.
type bridge struct {
	*testing.T
	ctx        context.Context
	cluster    *cluster.Cluster
	kubeconfig string
	cloud      *awstest.Cloud
	account    *awstest.Account
}

// start starts the cluster, in which sync has the rights it needs and no others.
func start(t *testing.T) *bridge {
	t.Helper()
	b := &bridge{T: t, ctx: t.Context(), cluster: cluster.Start(t, cluster.Options{})}
	b.must(b.cluster.Namespace(b.ctx, "monitoring", map[string]string{"ampbridge.io/injection": "enabled"}))
	b.must(b.cluster.Namespace(b.ctx, "unlabelled", nil))
	b.must(b.cluster.Namespace(b.ctx, "ampbridge", nil))
	b.serviceAccount("monitoring", "prometheus")
	b.serviceAccount("unlabelled", "prometheus")
	b.must(b.cluster.Identity(b.ctx, "ampbridge", "sync", cluster.Rights{
		Cluster: []rbacv1.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"namespaces", "serviceaccounts"}, Verbs: []string{"list", "watch"}},
			{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"list"}},
			{APIGroups: []string{""}, Resources: []string{"events"}, Verbs: []string{"create", "patch"}},
		},
		Namespace: []rbacv1.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"create"}},
			{
				APIGroups:     []string{""},
				Resources:     []string{"configmaps"},
				ResourceNames: []string{"ampbridge-sync"},
				Verbs:         []string{"get", "update"},
			},
			{
				APIGroups:     []string{"coordination.k8s.io"},
				Resources:     []string{"leases"},
				ResourceNames: []string{"ampbridge-sync"},
				Verbs:         []string{"create", "get", "update", "patch"},
			},
		},
	}))
	var err error
	b.kubeconfig, err = b.cluster.KubeconfigFor(b.ctx, "ampbridge", "sync")
	b.must(err)
	return b
}

// aws gives the test an AWS of its own, which knows the cluster's issuer.
func (b *bridge) aws(t *testing.T) *bridge {
	t.Helper()
	own := *b
	own.T, own.ctx, own.cloud = t, t.Context(), awstest.Start(t, awstest.Options{})
	_, err := own.cloud.RegisterIssuer(b.cluster.Issuer, b.cluster.OIDC(), awstest.PublicCA)
	own.must(err)
	own.account = own.cloud.Account(accountID)
	_, err = own.account.PutManagedPolicy(
		"boundary",
		`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"aps:RemoteWrite","Resource":"*"}}`,
	)
	own.must(err)
	own.account.AddWorkspace(region, "ws-0001")
	own.cloud.Setenv(t, own.account.AdminCredentials())
	return &own
}

func (b *bridge) must(err error) {
	b.Helper()
	testkit.Must(b, err)
}

func (b *bridge) serviceAccount(namespace, name string) {
	b.Helper()
	b.must(b.cluster.ServiceAccount(b.ctx, namespace, name))
}

// sync runs the command and returns what it printed, and the calls that it made
// to IAM.
func (b *bridge) sync(policyText string, change func(*reconcile.Options)) (output string, reads, writes int, err error) {
	b.Helper()
	o := reconcile.Options{
		Policy:     testkit.TempFile(b, "policy.yaml", policyText),
		Kubeconfig: b.kubeconfig,
		Once:       true,
		Output:     reconcile.Text,
		Namespace:  "ampbridge",
	}
	if change != nil {
		change(&o)
	}
	before := len(b.cloud.Calls())
	var stdout strings.Builder
	err = reconcile.Run(b.ctx, o, strings.NewReader(""), &stdout)
	reads, writes = awstest.CountIAM(b.cloud.Calls()[before:])
	return stdout.String(), reads, writes, err
}

func (b *bridge) inSync(policyText string, wantWrites int) {
	b.Helper()
	output, _, writes, err := b.sync(policyText, nil)
	if err != nil || writes != wantWrites || !strings.Contains(output, "\nsync: in sync: ") {
		b.Fatalf("%d writes (want %d), error %v, output:\n%s", writes, wantWrites, err, output)
	}
}

// assume shows a token of the service account, as the API server makes it, to STS.
func (b *bridge) assume(namespace, name string) error {
	b.Helper()
	return b.assumeRole(roleARN, namespace, name)
}

func (b *bridge) assumeRole(role, namespace, name string) error {
	b.Helper()
	token, err := b.cluster.Token(b.ctx, namespace, name, audience, 3600)
	b.must(err)
	client := sts.NewFromConfig(aws.Config{Region: region, BaseEndpoint: &b.cloud.URL})
	_, err = client.AssumeRoleWithWebIdentity(b.ctx, &sts.AssumeRoleWithWebIdentityInput{
		RoleArn: &role, RoleSessionName: aws.String("test"), WebIdentityToken: &token, DurationSeconds: aws.Int32(6 * 3600),
	})
	return err
}

func (b *bridge) admin() *iam.Client {
	return iam.NewFromConfig(b.cloud.Config(b.account.AdminCredentials(), region))
}

func TestSync(t *testing.T) {
	b := start(t)

	t.Run("from nothing to a token that assumes the role", func(t *testing.T) {
		b := b.aws(t)
		output, _, writes, err := b.sync(policyText, func(o *reconcile.Options) { o.DryRun = true })
		if err != nil || writes != 0 ||
			!strings.Contains(output, "plan: 2 to create, 1 to change, 0 refused\nsync: dry run: nothing was changed\n") {
			t.Fatalf("dry run: %d writes, error %v, output:\n%s", writes, err, output)
		}
		b.inSync(policyText, 3)
		if err := b.assume("monitoring", "prometheus"); err != nil {
			t.Errorf("granted: %v", err)
		}
		for _, other := range []string{"monitoring/default", "unlabelled/prometheus"} {
			namespace, name, _ := strings.Cut(other, "/")
			if b.assume(namespace, name) == nil {
				t.Errorf("%s assumed the role", other)
			}
		}
		output, reads, writes, err := b.sync(policyText, nil)
		if err != nil || writes != 0 || reads != 6 || !strings.HasSuffix(output, "sync: in sync: nothing to change\n") {
			t.Errorf("second run: %d reads, %d writes, error %v, output:\n%s", reads, writes, err, output)
		}
		byHand := strings.Split(policyText, "trust:")[0] + "trust: {manage: none}\n"
		output, _, writes, err = b.sync(byHand, nil)
		if err != nil || writes != 0 || strings.Contains(output, "in sync") ||
			!strings.Contains(output, "trust.manage is none: nothing was compared") {
			t.Errorf("without roles of its own: %d writes, error %v, output:\n%s", writes, err, output)
		}
	})

	t.Run("service accounts come and go", func(t *testing.T) {
		b := b.aws(t)
		b.inSync(policyText, 3)
		b.serviceAccount("monitoring", "prometheus-new")
		b.inSync(policyText, 1)
		if err := b.assume("monitoring", "prometheus-new"); err != nil {
			t.Errorf("a new service account: %v", err)
		}
		b.must(b.cluster.Client().CoreV1().ServiceAccounts("monitoring").Delete(b.ctx, "prometheus-new", metav1.DeleteOptions{}))
		b.inSync(policyText, 0)
		b.serviceAccount("monitoring", "prometheus-new")
		if err := b.assume("monitoring", "prometheus-new"); err != nil {
			t.Errorf("a service account that a Helm upgrade made again: %v", err)
		}
		b.inSync(strings.Replace(policyText, `"prometheus*"`, "prometheus", 1), 1)
		if b.assume("monitoring", "prometheus-new") == nil {
			t.Error("a service account whose grant ended assumed the role")
		}
	})

	t.Run("what others made is refused and left alone", func(t *testing.T) {
		b := b.aws(t)
		_, err := b.admin().CreateRole(b.ctx, &iam.CreateRoleInput{RoleName: aws.String(roleName), AssumeRolePolicyDocument: aws.String(
			`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"111122223333"},"Action":"sts:AssumeRole"}]}`)})
		b.must(err)
		output, _, writes, err := b.sync(policyText, nil)
		if err == nil || writes != 0 || !strings.Contains(output, "was not created by sync") ||
			!strings.HasSuffix(output, "sync: not in sync: 0 of 0 changes made, 1 refused\n") {
			t.Errorf("%d writes, error %v, output:\n%s", writes, err, output)
		}
	})

	t.Run("a failure takes along what builds on it, and the next run fixes it", func(t *testing.T) {
		b := b.aws(t)
		denied := b.cloud.Fail("iam:CreateRole", awstest.Deny)
		output, _, _, err := b.sync(policyText, func(o *reconcile.Options) { o.Output = reconcile.JSON })
		denied.Stop()
		var report reconcile.Report
		b.must(json.Unmarshal([]byte(output), &report))
		if err == nil || report.InSync || report.Made != 1 || len(report.Failures) != 2 ||
			report.Failures[0].Error != "CreateRole: AccessDenied: Access denied" || report.Failures[1].Error != "PutRolePolicy: not "+
			"tried, because CreateRole failed" {
			t.Errorf("error %v, report %+v", err, report)
		}
		b.inSync(policyText, 2)
	})

	t.Run("an issuer that is not the cluster's", func(t *testing.T) {
		b := b.aws(t)
		b.inSync(strings.Replace(policyText, "{name: dev}", `{name: dev, issuer: "`+b.cluster.Issuer+`"}`, 1), 3)
		slash := strings.Replace(policyText, "{name: dev}", `{name: dev, issuer: "`+b.cluster.Issuer+`/"}`, 1)
		_, reads, writes, err := b.sync(slash, nil)
		if err == nil || reads+writes != 0 || !strings.Contains(err.Error(), `"`+b.cluster.Issuer+`/"`) ||
			!strings.Contains(err.Error(), `"`+b.cluster.Issuer+`"`) {
			t.Errorf("%d calls, error %v: want one that shows both", reads+writes, err)
		}
	})
}
