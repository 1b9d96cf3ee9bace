package policy

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/test/testkit"
)

const exampleIssuer = Issuer("https://oidc.eks.eu-west-1.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF")

func indented(t *testing.T, d Document) string {
	t.Helper()
	var b bytes.Buffer
	testkit.Must(t, json.Indent(&b, []byte(d.String()), "", "  "))
	return b.String() + "\n"
}

// TestPermissionsGolden: the documentation shows what the functions return for the example.
func TestPermissionsGolden(t *testing.T) {
	p := load(t, "permissions.yaml")
	doc := testkit.ReadFile(t, "../docs/reference/iam.md")
	for name, d := range map[string]Document{
		"permissions-sync.json":     SyncPermissions(p, exampleIssuer, "111122223333"),
		"permissions-removal.json":  RemovalPermissions(p, exampleIssuer, "111122223333"),
		"permissions-boundary.json": BoundaryDocument(p, "111122223333"),
		"permissions-govcloud.json": SyncPermissions(p, exampleIssuer, "444455556666"),
		"boundary-govcloud.json":    BoundaryDocument(p, "444455556666"),
	} {
		text := indented(t, d)
		testkit.Golden(t, "testdata/"+name, text)
		if strings.HasPrefix(name, "permissions-") && name != "permissions-govcloud.json" &&
			!strings.Contains(doc, "```json\n"+text+"```\n") {
			t.Errorf("docs/reference/iam.md does not show policy/testdata/%s as it is", name)
		}
	}
}

func TestNothingToDoNeedsNoPermissions(t *testing.T) {
	none := load(t, "permissions.yaml")
	none.Trust.Manage = ManageNone
	kept := load(t, "permissions.yaml")
	for i := range kept.Destinations {
		kept.Destinations[i].Role = ARN{"aws", "iam", "", "111122223333", "role/mine"}
	}
	for name, p := range map[string]*Policy{"manage: none": none, "roles of the admin's": kept} {
		for _, d := range []Document{SyncPermissions(p, exampleIssuer, "111122223333"), RemovalPermissions(p, exampleIssuer, "111122223333"),
			BoundaryDocument(p, "111122223333")} {
			if len(d.Statement) > 0 {
				t.Errorf("%s: %s", name, d)
			}
		}
	}
	if d := SyncPermissions(load(t, "permissions.yaml"), exampleIssuer, "999999999999"); len(d.Statement) > 0 {
		t.Errorf("an account that the policy does not name: %s", d)
	}
}

// TestLongNamesShareNoPermissions: role names of clusters with long names are cut. If the names of
// two clusters begin alike, the permissions of one do not cover the other's roles.
func TestLongNamesShareNoPermissions(t *testing.T) {
	long := strings.Repeat("c", 62)
	for _, cluster := range []string{"dev", strings.Repeat("c", 40), strings.Repeat("c", 41), strings.Repeat("c", 42),
		strings.Repeat("c", 53), long + "a"} {
		p := load(t, "permissions.yaml")
		p.Cluster.Name = cluster
		statements := SyncPermissions(p, exampleIssuer, "111122223333").Statement
		resources := statements[slices.IndexFunc(statements, func(s Statement) bool { return s.Sid == "ChangeRoles" })].Resource
		covers := func(role ARN) bool {
			return slices.ContainsFunc(resources, func(r string) bool {
				prefix, wild := strings.CutSuffix(r, "*")
				return r == role.String() || wild && strings.HasPrefix(role.String(), prefix)
			})
		}
		for _, d := range p.managedIn("111122223333") {
			if !covers(p.Role(d)) {
				t.Errorf("%s: %s is not among %v", cluster, p.Role(d), resources)
			}
			for _, other := range []string{cluster + "2", cluster[1:], "dev-2", long + "b"} {
				role := p.Role(d)
				role.Resource = "role" + RolePath(cluster) + RoleName(other, d.Name)
				if other != cluster && covers(role) {
					t.Errorf("%s: %s, the name of another cluster's role, is among %v", cluster, role, resources)
				}
			}
		}
	}
}

// TestTagKeys: sync writes ampbridge's tags and the policy's, and no others.
func TestTagKeys(t *testing.T) {
	for name, test := range map[string]struct {
		tags map[string]string
		want Values
	}{
		"none":    {nil, nil},
		"one":     {map[string]string{"cost-center": "42"}, Values{"cost-center"}},
		"several": {map[string]string{"Team": "a", "cost center": "42"}, Values{"Team", "cost center"}},
	} {
		own := Values{"ampbridge.io/owner", "ampbridge.io/cluster", "ampbridge.io/destination", "ampbridge.io/managed-by",
			"ampbridge.io/namespace", "ampbridge.io/service-account"}
		p := load(t, "permissions.yaml")
		p.Trust.Tags = test.tags
		statements := SyncPermissions(p, exampleIssuer, "111122223333").Statement
		s := statements[slices.IndexFunc(statements, func(s Statement) bool { return s.Sid == "NeverOtherTags" })]
		got := s.Condition["ForAnyValue:StringNotEqualsIgnoreCase"]["aws:TagKeys"]
		if want := slices.Concat(own, test.want); s.Effect != "Deny" || !slices.Equal(got, want) {
			t.Errorf("%s: %s %v, want Deny %v", name, s.Effect, got, want)
		}
	}
}

// TestPermissionsFitAManagedPolicy: IAM accepts 6,144 characters, without white space.
func TestPermissionsFitAManagedPolicy(t *testing.T) {
	p := load(t, "permissions.yaml")
	p.Cluster.Name = strings.Repeat("c", 63)
	p.Destinations = p.Destinations[:2]
	p.Trust.PermissionsBoundary.Resource = "policy/" + strings.Repeat("b", 128)
	issuer := exampleIssuer + "/" + Issuer(strings.Repeat("i", maxIssuer-len(exampleIssuer)-1))
	if n := len(SyncPermissions(p, issuer, "111122223333").String()); n > 6144 {
		t.Errorf("%d characters", n)
	}
}
