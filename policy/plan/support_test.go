package plan

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/policytest"
	"github.com/ampbridge/ampbridge/test/testkit"
)

const (
	issuer = policy.Issuer(
		"https://eastus.oic.prod-aks.azure.com/11111111-2222-3333-4444-555555555555/66666666-7777-8888-9999-000000000000/",
	)
	account = "111122223333"
	role    = "ampbridge.dev-aks.central"
)

var noon = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// base is a policy with one destination; tests change its text.
const base = `
apiVersion: ampbridge.io/v1alpha1
kind: Policy
cluster: {name: dev-aks}
destinations:
- {name: central, workspace: "arn:aws:aps:eu-west-1:111122223333:workspace/ws-0001"}
grants:
- {namespaces: [monitoring, "team-*"], serviceAccounts: [prometheus, "*-prometheus"], destinations: [central]}
trust: {permissionsBoundary: "arn:aws:iam::999999999999:policy/ampbridge/boundary"}
`

// revoked is base without the grants of the teams.
var revoked = strings.Replace(base, `[monitoring, "team-*"]`, "[monitoring]", 1)

// twoDestinations is base with a second destination, backup, that the same subjects may use.
var twoDestinations = strings.NewReplacer(
	"grants:", `- {name: backup, workspace: "arn:aws:aps:eu-west-1:111122223333:workspace/ws-0009"}
grants:`, "destinations: [central]}", "destinations: [central, backup]}").Replace(base)

// input returns what a plan is computed from: a policy, the AWS accounts as found (nil if nothing exists yet), and
// the cluster's service accounts. It is noon.
func input(t *testing.T, text string, found map[string]Account, accounts ...ServiceAccount) Input {
	t.Helper()
	return Input{Policy: policytest.Parse(t, text), Issuer: issuer, Now: noon, Accounts: found, ServiceAccounts: accounts}
}

// hourOld returns service accounts that were created an hour ago.
func hourOld(subjects ...string) []ServiceAccount {
	list := make([]ServiceAccount, len(subjects))
	for i, subject := range subjects {
		list[i] = serviceAccount(subject, time.Hour)
	}
	return list
}

// serviceAccount returns a service account of a namespace with the label value enabled. age is how
// long ago it was created.
func serviceAccount(subject string, age time.Duration, annotations ...string) ServiceAccount {
	namespace, name, _ := strings.Cut(subject, "/")
	sa := ServiceAccount{
		Namespace: namespace, Name: name, Injection: policy.InjectionEnabled,
		Created:     time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(-age),
		Annotations: map[string]string{},
	}
	for i := 0; i < len(annotations); i += 2 {
		sa.Annotations[annotations[i]] = annotations[i+1]
	}
	return sa
}

func owner(p *policy.Policy) string { return policy.Owner(p.Cluster.Name, issuer) }

// applyPlan makes the plan's changes in a model of the accounts, as IAM does.
func applyPlan(p Plan, accounts map[string]Account) map[string]Account {
	after := map[string]Account{}
	for id, a := range accounts {
		a.Roles = maps.Clone(a.Roles)
		after[id] = a
	}
	for _, c := range p.Changes {
		a := after[c.Account]
		if a.Roles == nil {
			a.Roles = map[string]Role{}
		}
		if c.Call.OnProvider() {
			provider := Provider{}
			if a.Provider != nil {
				provider = *a.Provider
			}
			if c.Audience != "" {
				provider.Audiences = append(slices.Clip(provider.Audiences), c.Audience)
			}
			if c.Thumbprints != nil {
				provider.Thumbprints = c.Thumbprints
			}
			provider.Tags = merged(provider.Tags, c.Tags)
			a.Provider = &provider
		} else {
			r := a.Roles[c.Resource.RoleName()]
			if i := slices.IndexFunc(a.Orphans, func(o Role) bool { return o.ARN == c.Resource }); i >= 0 {
				r = a.Orphans[i]
				a.Orphans = slices.Delete(slices.Clone(a.Orphans), i, i+1)
			}
			r.ARN, r.Tags = c.Resource, merged(r.Tags, c.Tags)
			if c.Trust != nil {
				r.Trust = c.Trust.String()
			}
			if c.Permissions != nil {
				r.Permissions = c.Permissions.String()
			}
			if !c.Boundary.IsZero() {
				r.Boundary = c.Boundary.String()
			}
			if c.MaxSessionSeconds > 0 {
				r.MaxSession, r.Description = time.Duration(c.MaxSessionSeconds)*time.Second, c.Description
			}
			a.Roles[c.Resource.RoleName()] = r
		}
		after[c.Account] = a
	}
	return after
}

func merged(a, b map[string]string) map[string]string {
	m := map[string]string{}
	maps.Copy(m, a)
	maps.Copy(m, b)
	return m
}

// synced returns the accounts after a first plan for the policy base.
func synced(t *testing.T, accounts ...ServiceAccount) map[string]Account {
	t.Helper()
	p := Compute(input(t, base, nil, accounts...))
	if len(p.Refusals) > 0 {
		t.Fatalf("refused: %v", p.Refusals)
	}
	return applyPlan(p, nil)
}

// trusts returns the subjects that may assume the role, as namespace/name.
func trusts(t *testing.T, accounts map[string]Account) []string {
	t.Helper()
	r, exists := accounts[account].Roles[role]
	if !exists {
		return nil
	}
	return trustedBy(t, r.Trust)
}

// trustedBy returns the subjects that a trust document trusts, as namespace/name.
func trustedBy(t *testing.T, document string) []string {
	t.Helper()
	d, err := policy.ParseDocument(document)
	testkit.Must(t, err)
	list := []string{}
	for _, s := range d.Subjects(issuer) {
		list = append(list, s.Namespace+"/"+s.ServiceAccount)
	}
	return list
}

func calls(p Plan) []string {
	var list []string
	for _, c := range p.Changes {
		list = append(list, string(c.Call))
	}
	return list
}

// wantCalls ends the test if the plan makes other calls.
func wantCalls(t *testing.T, p Plan, want ...string) {
	t.Helper()
	if got := calls(p); !slices.Equal(got, want) {
		t.Fatalf("calls %q, want %q, in the plan:\n%s", got, want, p)
	}
}
