package policy

import (
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/test/testkit"
)

func TestIssuerIsKeptByteForByte(t *testing.T) {
	for _, row := range []struct{ issuer, host, provider string }{
		{
			"https://oidc.eks.eu-west-1.amazonaws.com/id/B4EA44BE30ABD91AC23C475F32379593",
			"oidc.eks.eu-west-1.amazonaws.com/id/B4EA44BE30ABD91AC23C475F32379593",
			"arn:aws:iam::111122223333:oidc-provider/oidc.eks.eu-west-1.amazonaws.com/id/B4EA44BE30ABD91AC23C475F32379593",
		},
		// AKS: the slash at the end is part of `iss`, of the key and of the ARN.
		{
			"https://eastus.oic.prod-aks.azure.com/tenant/uuid/",
			"eastus.oic.prod-aks.azure.com/tenant/uuid/",
			"arn:aws:iam::111122223333:oidc-provider/eastus.oic.prod-aks.azure.com/tenant/uuid/",
		},
		{
			"https://container.googleapis.com/v1/projects/P/locations/L/clusters/C",
			"container.googleapis.com/v1/projects/P/locations/L/clusters/C",
			"arn:aws:iam::111122223333:oidc-provider/container.googleapis.com/v1/projects/P/locations/L/clusters/C",
		},
	} {
		var i Issuer
		testkit.Must(t, i.UnmarshalText([]byte(row.issuer)))
		if i.Host() != row.host {
			t.Errorf("Host(%s) = %s, want %s", i, i.Host(), row.host)
		}
		if got := i.ProviderARN("aws", "111122223333").String(); got != row.provider {
			t.Errorf("ProviderARN(%s) = %s, want %s", i, got, row.provider)
		}
	}
}

func TestSubject(t *testing.T) {
	s, err := ParseSubject("system:serviceaccount:monitoring:prometheus-k8s")
	if err != nil || s != (Subject{"monitoring", "prometheus-k8s"}) || s.String() != "system:serviceaccount:monitoring:prometheus-k8s" {
		t.Errorf("ParseSubject = %v, %v", s, err)
	}
	for _, bad := range []string{"", "system:serviceaccount:monitoring", "system:serviceaccount::x", "system:serviceaccount:a:",
		"system:serviceaccount:a:b:c", "serviceaccount:a:b", "system:node:a:b",
		// No service account has such a name, and IAM could read it as more than one subject.
		"system:serviceaccount:team-*:prometheus", "system:serviceaccount:a:*", "system:serviceaccount:a:prometheus?",
		"system:serviceaccount:a:${*}",
		"system:serviceaccount:A:b", "system:serviceaccount:a.b:c", "system:serviceaccount:a:b..c", "system:serviceaccount:a: b",
		"system:serviceaccount:a:" + strings.Repeat("b", 254)} {
		if s, err := ParseSubject(bad); err == nil {
			t.Errorf("ParseSubject(%q) = %v, want an error", bad, s)
		}
	}
}

func TestRoleNamesNeverMeet(t *testing.T) {
	long := strings.Repeat("x", 63)
	seen := map[string]string{}
	for _, pair := range [][2]string{
		{"dev", "central"}, {"dev-central", "a"}, {"dev", "central-a"}, {"dev-a", "central"}, {"dev", "a-central"},
		{long, "central"}, {long, "centrala"}, {long, long}, {long[1:], long}, {long, long[1:]},
	} {
		name := RoleName(pair[0], pair[1])
		if other, taken := seen[strings.ToLower(name)]; taken {
			t.Errorf("%v and %s share the role name %s", pair, other, name)
		}
		seen[strings.ToLower(name)] = pair[0] + " " + pair[1]
		if len(name) > 64 {
			t.Errorf("%s has %d characters, IAM allows 64", name, len(name))
		}
		if !(ARN{Partition: "aws", Service: "iam", Account: "111122223333", Resource: "role" + RolePath(pair[0]) + name}).IsRole() {
			t.Errorf("%s is no legal role name", name)
		}
	}
	if got := RoleName("dev-aks", "central"); got != "ampbridge.dev-aks.central" {
		t.Errorf("RoleName = %s", got)
	}
}

// People who can create service accounts choose their names. No name may lead to the role of
// another service account.
func TestServiceAccountRoleNamesAreUniqueAndLegal(t *testing.T) {
	long, longer := strings.Repeat("n", 40), strings.Repeat("s", 250)
	seen := map[string][4]string{}
	check := func(cluster, destination, namespace, name string) string {
		of := [4]string{cluster, destination, namespace, name}
		role := ServiceAccountRoleName(cluster, destination, Subject{namespace, name})
		if other, taken := seen[strings.ToLower(role)]; taken && other != of {
			t.Errorf("%q and %q share the role name %s", of, other, role)
		}
		seen[strings.ToLower(role)] = of
		if !(ARN{Partition: "aws", Service: "iam", Account: "111122223333", Resource: "role" + RolePath(cluster) + role}).IsRole() {
			t.Errorf("%s is no legal role name", role)
		}
		return role
	}
	clusters := []string{
		"dev",
		"dev-a",
		"dev-a-b",
		strings.Repeat("c", 20),
		strings.Repeat("c", 21),
		strings.Repeat("c", 22),
		strings.Repeat("c", 63),
		strings.Repeat("c", 62) + "d",
	}
	for _, cluster := range clusters {
		for _, destination := range []string{"central", "a-b", "a", "b-central", long} {
			for _, namespace := range []string{"team", "team-a", "a-team", "a", "n", long, long + "a"} {
				for _, name := range []string{"prometheus", "a-prometheus", "prometheus.a", "a.prometheus", "team-a.prometheus", longer,
					longer + "a", longer[:60] + ".a"} {
					cut := check(cluster, destination, namespace, name)
					// These names are chosen so that the whole name equals the cut name of another
					// subject.
					if rest, long := strings.CutPrefix(cut, rolePrefix(cluster, clusterPart)+destination+"."+namespace+"."); long {
						check(cluster, destination, namespace, strings.ReplaceAll(rest, "_", "."))
						check(cluster, destination, namespace, strings.ReplaceAll(rest, "_", "-"))
					}
				}
			}
		}
		for _, other := range clusters {
			if other != cluster && strings.HasPrefix(ServiceAccountRoleName(other, "d", Subject{"n", "s"}), rolePrefix(cluster, clusterPart)) {
				t.Errorf("roles of %s are named like those of %s", other, cluster)
			}
		}
		for _, destination := range []string{"central", long} {
			if of, taken := seen[RoleName(cluster, destination)]; taken {
				t.Errorf("the role of destination %s is named like that of %q", destination, of)
			}
		}
	}
	if got := ServiceAccountRoleName(
		"dev-aks",
		"central",
		Subject{"monitoring", "prometheus-k8s"},
	); got != "ampbridge.dev-aks.central.monitoring.prometheus-k8s" {
		t.Errorf("ServiceAccountRoleName = %s", got)
	}
}

func TestOwnerTellsClustersApart(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range []struct {
		name   string
		issuer Issuer
	}{{"dev", "https://a/"}, {"dev", "https://a"}, {"dev", "https://b/"}, {"prod", "https://a/"}} {
		owner := Owner(c.name, c.issuer)
		if seen[owner] || len(owner) != 32 {
			t.Errorf("Owner(%v) = %s", c, owner)
		}
		seen[owner] = true
	}
}

func TestARN(t *testing.T) {
	for _, row := range []struct {
		arn          string
		role, policy bool
	}{
		{"arn:aws:iam::111122223333:role/writer", true, false},
		{"arn:aws-cn:iam::111122223333:role/a/b/writer", true, false},
		{"arn:aws:iam::111122223333:policy/boundary", false, true},
		{"arn:aws:iam::111122223333:user/writer", false, false},
		{"arn:aws:sts::111122223333:assumed-role/writer/session", false, false},
		{"arn:aws:s3:::bucket:with:colons", false, false},
		// IAM takes these in a path; a document would read more than one name in them.
		{"arn:aws:iam::111122223333:role/*/writer", false, false},
		{"arn:aws:iam::111122223333:role/a?/writer", false, false},
		{"arn:aws:iam::111122223333:role/${aws:username}/writer", false, false},
		{"arn:aws:iam::111122223333:policy/*/boundary", false, false},
	} {
		a, err := ParseARN(row.arn)
		if err != nil || a.String() != row.arn || a.IsRole() != row.role || a.IsPolicy() != row.policy {
			t.Errorf("ParseARN(%s) = %v, %v; role %v, policy %v", row.arn, a, err, a.IsRole(), a.IsPolicy())
		}
	}
	for _, bad := range []string{"", "arn", "arn:aws:iam::123:role/x", "arn::iam::111122223333:role/x", "arn:aws:iam::111122223333:",
		"role/x"} {
		if a, err := ParseARN(bad); err == nil {
			t.Errorf("ParseARN(%q) = %v, want an error", bad, a)
		}
	}
}

func TestEveryPartition(t *testing.T) {
	for _, row := range []struct{ workspace, url, role string }{
		{"arn:aws:aps:eu-west-1:111122223333:workspace/ws-1", "https://aps-workspaces.eu-west-1.amazonaws.com/workspaces/ws-1/api/v1/" +
			"remote_write", "arn:aws:iam::111122223333:role/ampbridge/c/ampbridge.c.d"},
		{"arn:aws-us-gov:aps:us-gov-west-1:111122223333:workspace/ws-1", "https://aps-workspaces.us-gov-west-1.amazonaws.com/" +
			"workspaces/ws-1/api/v1/remote_write", "arn:aws-us-gov:iam::111122223333:role/ampbridge/c/ampbridge.c.d"},
		{"arn:aws-cn:aps:cn-north-1:111122223333:workspace/ws-1", "https://aps-workspaces.cn-north-1.amazonaws.com.cn/workspaces/ws-1/" +
			"api/v1/remote_write", "arn:aws-cn:iam::111122223333:role/ampbridge/c/ampbridge.c.d"},
		{"arn:aws-eusc:aps:eusc-de-east-1:111122223333:workspace/ws-1", "https://aps-workspaces.eusc-de-east-1.amazonaws.eu/" +
			"workspaces/ws-1/api/v1/remote_write", "arn:aws-eusc:iam::111122223333:role/ampbridge/c/ampbridge.c.d"},
		{"arn:aws-iso-b:aps:us-isob-east-1:111122223333:workspace/ws-1", "https://aps-workspaces.us-isob-east-1.sc2s.sgov.gov/" +
			"workspaces/ws-1/api/v1/remote_write", "arn:aws-iso-b:iam::111122223333:role/ampbridge/c/ampbridge.c.d"},
	} {
		d := Destination{Name: "d"}
		testkit.Must(t, d.Workspace.UnmarshalText([]byte(row.workspace)))
		p := &Policy{Cluster: Cluster{Name: "c"}}
		if d.URL() != row.url || p.Role(d).String() != row.role {
			t.Errorf("%s: URL %s, role %s", row.workspace, d.URL(), p.Role(d))
		}
	}
}

// parseWithIssuer parses a policy with an issuer.
func parseWithIssuer(issuer string) error {
	_, err := Parse([]byte(strings.Replace(taggedPolicy, "https://issuer.example/dev", issuer, 1)))
	return err
}

func TestIssuersThatAWSCannotReach(t *testing.T) {
	for kind, issuers := range map[string][]string{
		"the name ": {
			"https://kubernetes.default.svc", "https://kubernetes.default.svc.cluster.local", "https://kubernetes",
			"https://localhost/x", "https://OIDC.Corp/x", "https://api.cluster.internal", "https://nas.home.arpa",
		},
		"the private address ": {
			"https://10.0.0.1", "https://172.31.255.1/id", "https://192.168.1.1", "https://127.0.0.1",
			"https://169.254.169.254", "https://100.64.1.1", "https://0.0.0.0",
		},
	} {
		for _, issuer := range issuers {
			host, _, _ := strings.Cut(strings.TrimPrefix(strings.ToLower(issuer), "https://"), "/")
			err := parseWithIssuer(issuer)
			if err == nil || !strings.Contains(err.Error(), "cluster.issuer: ") || !strings.Contains(err.Error(), kind+host) ||
				!strings.Contains(err.Error(), "ampbridge issuer publish") {
				t.Errorf("%s: %v, want %q", issuer, err, kind+host)
			}
		}
	}
	for _, issuer := range []string{
		"https://oidc.eks.eu-west-1.amazonaws.com/id/0123456789ABCDEF", "https://eastus.oic.prod-aks.azure.com/tenant/uuid/",
		"https://container.googleapis.com/v1/projects/local/internal/x", "https://bucket.s3.eu-west-1.amazonaws.com",
		"https://mylocal.example", "https://172.32.0.1", "https://203.0.113.7",
	} {
		if err := parseWithIssuer(issuer); err != nil {
			t.Errorf("%s: %v, want no error", issuer, err)
		}
	}
}

// TestSlashOfAKS: the issuers of AKS end in a slash. Others may or may not.
func TestSlashOfAKS(t *testing.T) {
	for _, issuer := range []string{
		"https://westeurope.oic.prod-aks.azure.com/tenant/uuid", "https://usgovvirginia.oic.prod-aks.azure.us/tenant/uuid",
		"https://chinaeast2.oic.prod-aks.azure.cn/tenant/uuid", "https://WestEurope.OIC.prod-aks.azure.com/tenant/uuid",
	} {
		err := parseWithIssuer(issuer)
		if want := "cluster.issuer: " + issuer + " lacks the slash at its end"; err == nil || !strings.Contains(err.Error(), want) ||
			!strings.HasSuffix(err.Error(), "write "+issuer+"/") {
			t.Errorf("%s: %v, want %q and the issuer with the slash", issuer, err, want)
		}
	}
	for _, issuer := range []string{
		"https://westeurope.oic.prod-aks.azure.com/tenant/uuid/", "https://usgovvirginia.oic.prod-aks.azure.us/tenant/uuid/",
		"https://issuer.example/.oic.prod-aks./uuid", "https://issuer.example/tenant/uuid", "https://issuer.example/tenant/uuid/",
	} {
		if err := parseWithIssuer(issuer); err != nil {
			t.Errorf("%s: %v, want no error", issuer, err)
		}
	}
}
