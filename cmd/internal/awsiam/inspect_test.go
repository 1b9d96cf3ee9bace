package awsiam_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/google/go-cmp/cmp"

	"github.com/ampbridge/ampbridge/cmd/internal/awsiam"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/plan"
)

func TestInspect(t *testing.T) {
	f := converged(t)
	const attached = "arn:aws:iam::aws:policy/AmazonPrometheusQueryAccess"
	f.must(f.admin().AttachRolePolicy(f.ctx, &iam.AttachRolePolicyInput{RoleName: new(roleName), PolicyArn: new(attached)}))
	target := plan.Targets(f.policy, issuer)[0]
	i, err := awsiam.New(nil).Inspect(f.ctx, target)
	f.must(nil, err)

	provider, err := i.Provider(f.ctx, target.Provider)
	f.must(nil, err)
	if provider == nil || "https://"+provider.URL != issuer || !slices.Equal(provider.Audiences, []string{"sts.amazonaws.com"}) ||
		len(provider.Thumbprints) != 1 {
		t.Errorf("provider %+v", provider)
	}
	none, err := i.Provider(f.ctx, policy.Issuer("https://example.com").ProviderARN("aws", accountID))
	if none != nil || err != nil {
		t.Errorf("a provider that is not there: %v, %v", none, err)
	}
	all, err := i.Providers(f.ctx)
	f.must(nil, err)
	if diff := cmp.Diff([]policy.ARN{target.Provider}, all); diff != "" {
		t.Errorf("providers: %s", diff)
	}

	role, err := i.Role(f.ctx, roleName)
	f.must(nil, err)
	if role == nil || role.ARN.RoleName() != roleName || role.Boundary == "" {
		t.Fatalf("role %+v", role)
	}
	documents, err := i.Policies(f.ctx, roleName)
	f.must(nil, err)
	managed, err := i.Document(f.ctx, attached)
	f.must(nil, err)
	if len(documents) != 2 || documents[0].Name != plan.PolicyName || documents[1].Name != attached ||
		!policy.Equal(documents[0].Document, policy.PermissionDocument(f.policy.Destinations[0])) ||
		!policy.Equal(documents[1].Document, managed) {
		t.Errorf("documents %v", documents)
	}
	if _, err := i.Document(f.ctx, "arn:aws:iam::"+accountID+":policy/none"); err == nil ||
		!strings.HasSuffix(err.Error(), ":policy/none does not exist") {
		t.Errorf("a policy that is not there: %v", err)
	}
}

func TestInspectRefusesAnotherAccount(t *testing.T) {
	f := newFixture(t, policyText)
	if _, err := awsiam.New(
		nil,
	).Inspect(
		f.ctx,
		plan.Target{Account: "999988887777", Region: "eu-west-1"},
	); err == nil ||
		!strings.Contains(err.Error(), "the credentials are of account "+accountID) {
		t.Error(err)
	}
}
