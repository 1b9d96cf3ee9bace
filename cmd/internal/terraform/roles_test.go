package terraform

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2/hclwrite"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/plan"
	"github.com/ampbridge/ampbridge/test/policytest"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/tfconfig"
)

const (
	account = "111122223333"
	issuer  = policy.Issuer(
		"https://westeurope.oic.prod-aks.azure.com/11111111-2222-3333-4444-555555555555/66666666-7777-8888-9999-000000000000/",
	)

	central = `- {name: central, workspace: "arn:aws:aps:eu-west-1:111122223333:workspace/ws-0001"}
`
	base = `
apiVersion: ampbridge.io/v1alpha1
kind: Policy
cluster: {name: dev-aks}
destinations:
` + central + `- {name: 2nd-site, workspace: "arn:aws:aps:eu-central-1:111122223333:workspace/ws-0002",
  assumeRole: "arn:aws:iam::999988887777:role/partner-writer"}
- {name: elsewhere, workspace: "arn:aws-us-gov:aps:us-gov-west-1:444455556666:workspace/ws-0003"}
- {name: kept, workspace: "arn:aws:aps:eu-west-1:111122223333:workspace/ws-0004", role: "arn:aws:iam::111122223333:role/by-hand"}
grants:
- {namespaces: [monitoring, "team-*"], serviceAccounts: [prometheus, "*-prometheus"], destinations: [central, elsewhere, kept]}
- {namespaces: [monitoring], serviceAccounts: [prometheus], destinations: [2nd-site]}
trust: {permissionsBoundary: "arn:aws:iam::999999999999:policy/ampbridge/boundary"}
`
)

// desired is for service accounts of labelled namespaces, each NAMESPACE/NAME.
func desired(t *testing.T, text string, subjects ...string) plan.Plan {
	t.Helper()
	in := plan.Input{Policy: policytest.Parse(t, text), Issuer: issuer}
	for _, s := range subjects {
		namespace, name, _ := strings.Cut(s, "/")
		in.ServiceAccounts = append(
			in.ServiceAccounts,
			plan.ServiceAccount{Namespace: namespace, Name: name, Injection: policy.InjectionEnabled},
		)
	}
	return Desired(in)
}

var some = []string{"monitoring/prometheus", "team-a/a-prometheus"}

func TestRoles(t *testing.T) {
	p := desired(t, base, some...)
	testkit.Golden(t, "testdata/roles.tf", Roles(p, account, false, false))
	testkit.Golden(t, "testdata/roles-existing-provider.tf", Roles(p, account, true, false))
	testkit.Golden(t, "testdata/roles-govcloud.tf", Roles(p, "444455556666", false, false))
	for _, account := range Accounts(p) {
		tfconfig.Check(t, Roles(p, account, false, false))
	}
	if diff := cmp.Diff([]string{account, "444455556666"}, Accounts(p)); diff != "" {
		t.Errorf("accounts (-want +got):\n%s", diff)
	}
}

// Whatever stands in the configuration is what sync would have told IAM.
func TestRolesSayWhatSyncDoes(t *testing.T) {
	unmanaged := strings.Replace(
		base,
		`trust: {permissionsBoundary: "arn:aws:iam::999999999999:policy/ampbridge/boundary"}`,
		"trust: {manage: none}",
		1,
	)
	for name, text := range map[string]string{
		"managed": base, "unmanaged": unmanaged,
		"unmanaged, bounded":              strings.Replace(base, "trust: {", "trust: {manage: none, ", 1),
		"a role for each service account": strings.Replace(base, "trust: {", "trust: {roleScope: serviceAccount, ", 1),
	} {
		for _, existing := range []bool{false, true} {
			p := desired(t, text, some...)
			for _, account := range Accounts(p) {
				compare(t, name, p, account, Roles(p, account, existing, false), existing)
			}
		}
	}
}

func compare(t *testing.T, name string, p plan.Plan, account string, text []byte, existing bool) {
	t.Helper()
	provider := p.Issuer.ProviderARN(partition(p, account), account).String()
	config, err := tfconfig.Parse(text, map[string]map[string]string{providerAddress: {"arn": provider}})
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, text)
	}
	want, labels := []string{}, roleLabels(p.Changes)
	for _, c := range p.Changes {
		if c.Account != account || (existing && c.Call == plan.CreateProvider) {
			continue
		}
		address := providerAddress
		switch c.Call {
		case plan.CreateRole:
			address = "aws_iam_role." + labels[c.Resource]
		case plan.PutPermissions:
			address = "aws_iam_role_policy." + labels[c.Resource]
		}
		want = append(want, address)
		r := config.Resources[address]
		switch c.Call {
		case plan.CreateProvider:
			if r.String("url") != string(p.Issuer) || !slices.Equal(r.Strings("client_id_list"), []string{c.Audience}) {
				t.Errorf("%s: provider %s for %s", name, r.String("url"), r.Strings("client_id_list"))
			}
		case plan.CreateRole:
			boundary := ""
			if c.Boundary.Service != "" {
				boundary = c.Boundary.String()
			}
			if arn := "arn:" + c.Resource.Partition + ":iam::" + account + ":role" + r.String(
				"path",
			) + r.String(
				"name",
			); arn != c.Resource.String() {
				t.Errorf("%s: role %s, want %s", name, arn, c.Resource)
			}
			if r.String("permissions_boundary") != boundary || r.String("description") != c.Description {
				t.Errorf("%s: %s: boundary %q, description %q", name, address, r.String("permissions_boundary"), r.String("description"))
			}
			if seconds, _ := r.Attributes["max_session_duration"].AsBigFloat().Int64(); seconds != int64(c.MaxSessionSeconds) {
				t.Errorf("%s: %s: session of %d s, want %d", name, address, seconds, c.MaxSessionSeconds)
			}
			same(t, name+": "+address, r, "assume_role_policy", *c.Trust)
		case plan.PutPermissions:
			if r.String("name") != plan.PolicyName || r.String("role") != c.Resource.RoleName() {
				t.Errorf("%s: %s: policy %q of role %q", name, address, r.String("name"), r.String("role"))
			}
			same(t, name+": "+address, r, "policy", *c.Permissions)
		}
		if c.Tags != nil {
			tags := maps.Clone(c.Tags)
			tags[plan.TagManagedBy] = "terraform"
			if diff := cmp.Diff(tags, r.Map("tags")); diff != "" {
				t.Errorf("%s: %s: tags (-want +got):\n%s", name, address, diff)
			}
		}
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(config.Resources))); diff != "" {
		t.Errorf("%s: resources (-want +got):\n%s", name, diff)
	}
	// Whoever applies it elsewhere is stopped at the first thing there is.
	if bytes.Count(text, []byte("postcondition {")) != 1 {
		t.Errorf("%s: account %s has no guard, or several:\n%s", name, account, text)
	}
}

func same(t *testing.T, what string, r tfconfig.Resource, attribute string, want policy.Document) {
	t.Helper()
	got, err := r.Document(attribute)
	if err != nil || !policy.Equal(got, want) {
		t.Errorf("%s: %v\ngot  %s\nwant %s", what, err, got, want)
	}
}

// What is added is a few lines in one place, and moves nothing else.
func TestDiffsAreSmall(t *testing.T) {
	before := string(Roles(desired(t, base, some...), account, false, false))
	for _, c := range []struct {
		name  string
		after []byte
		lines int // added at most; none is taken away
	}{
		{"a subject", Roles(desired(t, base, append(some, "monitoring/a-prometheus")...), account, false, false), 1},
		{"a destination in front", Roles(desired(t, strings.NewReplacer(central,
			strings.ReplaceAll(strings.ReplaceAll(central, "central", "alpha"), "ws-0001", "ws-0009")+central,
			"destinations: [2nd-site]", "destinations: [alpha, 2nd-site]").Replace(base), some...), account, false, false), 60},
	} {
		t.Run(c.name, func(t *testing.T) {
			added, removed := difference(before, string(c.after))
			if removed > 0 || added == 0 || added > c.lines {
				t.Errorf("%d lines added, %d removed:\n%s", added, removed, cmp.Diff(before, string(c.after)))
			}
		})
	}
}

// difference counts the lines that stand in one text only: its parts before and
// after the one place that changed are the same.
func difference(a, b string) (added, removed int) {
	before, after := strings.Split(a, "\n"), strings.Split(b, "\n")
	for len(before) > 0 && len(after) > 0 && before[0] == after[0] {
		before, after = before[1:], after[1:]
	}
	for len(before) > 0 && len(after) > 0 && before[len(before)-1] == after[len(after)-1] {
		before, after = before[:len(before)-1], after[:len(after)-1]
	}
	return len(after), len(before)
}

// The policy's own syntax keeps such names out; the writer does not depend on it.
var hostile = []string{
	`${aws_iam_role.admin.arn}`, `%{ if true }x%{ endif }`, `"quoted"`, `a"; rm -rf / #`, "two\nlines", "tab\tand\\backslash",
	`$${kept}`, "ünïcode\u2028", `'single'`, "*/ } resource \"x\" \"y\" {", "<<EOT", "`backquote` $(command)", "",
}

func TestHostileValuesAreText(t *testing.T) {
	for _, value := range hostile {
		attributes := map[string]string{"name": value, value + "key": value}
		d := policy.Document{Version: policy.DocumentVersion, Statement: []policy.Statement{{
			Sid: value, Effect: "Allow", Action: policy.Values{value, "x"}, Resource: policy.Values{value},
			Principal: &policy.Principal{"Federated": {value}},
			Condition: map[string]map[string]policy.Values{"StringEquals": {value + ":sub": {value}, value: {value}}},
		}}}
		text := format(comment("about %s", value), head(value, basic, withRegions), block(
			"kind",
			"name",
			attribute{
				"text",
				quote(value),
			},
			attribute{"list", lines([]string{value})},
			attribute{"tags", object(attributes)},
			attribute{"policy", references{}.document(d)},
		))
		config, err := tfconfig.Parse(text, nil)
		if err != nil {
			t.Errorf("%q: %v\n%s", value, err, text)
			continue
		}
		r := config.Resources["kind.name"]
		if len(config.Resources) != 1 || r.String("text") != value || !slices.Equal(r.Strings("list"), []string{value}) {
			t.Errorf("%q became %q and %q", value, r.String("text"), r.Strings("list"))
		}
		if diff := cmp.Diff(attributes, r.Map("tags")); diff != "" {
			t.Errorf("%q: tags (-want +got):\n%s", value, diff)
		}
		same(t, value, r, "policy", d)
	}
}

func TestFormatted(t *testing.T) {
	text := Roles(desired(t, base, some...), account, false, false)
	if again := hclwrite.Format(text); !bytes.Equal(again, text) {
		t.Errorf("formatting changes it:\n%s", cmp.Diff(string(text), string(again)))
	}
}
