package awsiam_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/google/go-cmp/cmp"

	"github.com/ampbridge/ampbridge/cmd/internal/awsiam"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/plan"
)

func TestInspect(t *testing.T) {
	w := newFixture(t, policyText)
	w.converge("prometheus")
	const attached = "arn:aws:iam::aws:policy/AmazonPrometheusQueryAccess"
	w.must(w.admin().AttachRolePolicy(w.ctx, &iam.AttachRolePolicyInput{RoleName: aws.String(roleName), PolicyArn: aws.String(attached)}))
	target := plan.Targets(w.policy, issuer)[0]
	i, err := awsiam.New(nil).Inspect(w.ctx, target)
	w.must(nil, err)

	provider, err := i.Provider(w.ctx, target.Provider)
	w.must(nil, err)
	if provider == nil || "https://"+provider.URL != issuer || !slices.Equal(provider.Audiences, []string{"sts.amazonaws.com"}) || len(provider.Thumbprints) != 1 {
		t.Errorf("provider %+v", provider)
	}
	none, err := i.Provider(w.ctx, policy.Issuer("https://example.com").ProviderARN("aws", accountID))
	if none != nil || err != nil {
		t.Errorf("a provider that is not there: %v, %v", none, err)
	}
	all, err := i.Providers(w.ctx)
	w.must(nil, err)
	if diff := cmp.Diff([]policy.ARN{target.Provider}, all); diff != "" {
		t.Errorf("providers: %s", diff)
	}

	role, err := i.Role(w.ctx, roleName)
	w.must(nil, err)
	if role == nil || role.ARN.RoleName() != roleName || role.Boundary == "" {
		t.Fatalf("role %+v", role)
	}
	documents, err := i.Policies(w.ctx, roleName)
	w.must(nil, err)
	managed, err := i.Document(w.ctx, attached)
	w.must(nil, err)
	if len(documents) != 2 || !policy.Equal(documents[0], policy.PermissionDocument(w.policy.Destinations[0])) || !policy.Equal(documents[1], managed) {
		t.Errorf("documents %v", documents)
	}
	if _, err := i.Document(w.ctx, "arn:aws:iam::"+accountID+":policy/none"); err == nil || !strings.HasPrefix(err.Error(), "GetPolicy: NoSuchEntity") {
		t.Errorf("a policy that is not there: %v", err)
	}
}

func TestInspectRefusesAnotherAccount(t *testing.T) {
	w := newFixture(t, policyText)
	if _, err := awsiam.New(nil).Inspect(w.ctx, plan.Target{Account: "999988887777", Region: "eu-west-1"}); err == nil || !strings.Contains(err.Error(), "the credentials are of account "+accountID) {
		t.Error(err)
	}
}
