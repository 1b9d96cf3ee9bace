package policy

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/test/testkit"
)

const aksIssuer = Issuer("https://westeurope.oic.prod-aks.azure.com/tenant/uuid/")

func TestDocumentsGolden(t *testing.T) {
	p := load(t, "full.yaml")
	subjects := []Subject{{"team-b", "b-prometheus"}, {"monitoring", "prometheus-k8s"}, {"team-b", "b-prometheus"}}
	testkit.Golden(
		t,
		"testdata/trust.json",
		TrustDocument(aksIssuer.ProviderARN("aws", "111122223333"), aksIssuer, "sts.amazonaws.com", subjects).String()+"\n",
	)
	testkit.Golden(t, "testdata/permission.json", PermissionDocument(p.Destinations[0]).String()+"\n")
	testkit.Golden(t, "testdata/permission-chained.json", PermissionDocument(p.Destinations[1]).String()+"\n")
}

func TestTrustDocumentIsStable(t *testing.T) {
	provider := aksIssuer.ProviderARN("aws", "111122223333")
	a := TrustDocument(provider, aksIssuer, "aud", []Subject{{"b", "y"}, {"a", "x"}})
	b := TrustDocument(provider, aksIssuer, "aud", []Subject{{"a", "x"}, {"b", "y"}, {"a", "x"}})
	if a.String() != b.String() {
		t.Errorf("order of subjects changes the document:\n%s\n%s", a, b)
	}
	testkit.Equal(t, "Subjects", []Subject{{"a", "x"}, {"b", "y"}}, a.Subjects(aksIssuer))
	if got := a.Subjects(aksIssuer[:len(aksIssuer)-1]); len(got) != 0 {
		t.Errorf("the issuer without its slash has subjects %v", got)
	}
}

// TestQuotaHoldsATeam: the facts count 21 to 23 service accounts in 2,048
// characters with realistic names.
func TestQuotaHoldsATeam(t *testing.T) {
	issuer := Issuer("https://oidc.eks.eu-west-1.amazonaws.com/id/B4EA44BE30ABD91AC23C475F32379593")
	var subjects []Subject
	for i := range 20 {
		subjects = append(subjects, Subject{"team-" + string(rune('a'+i)), "kube-prometheus-stack-prometheus"})
	}
	if n := len(TrustDocument(issuer.ProviderARN("aws", "111122223333"), issuer, "sts.amazonaws.com", subjects).String()); n > 2048 {
		t.Errorf("20 subjects take %d characters", n)
	}
}

func TestEqual(t *testing.T) {
	const trust = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Federated":"arn:aws:iam::1:oidc-provider/h/` +
		`"},"Action":"sts:AssumeRoleWithWebIdentity","Condition":{"StringEquals":{"h/:aud":"sts.amazonaws.com","h/:sub":["a","b"]}}}]}`
	const cross = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:root"},` +
		`"Action":"sts:AssumeRole"}]}`
	replace := func(text, old, with string) string {
		if !strings.Contains(text, old) {
			t.Fatalf("%s lacks %s", text, old)
		}
		return strings.ReplaceAll(text, old, with)
	}
	for name, row := range map[string]struct {
		a, b  string
		equal bool
	}{
		"itself":                      {trust, trust, true},
		"URL-encoded, as IAM returns": {trust, url.PathEscape(trust), true},
		"order of values":             {trust, replace(trust, `["a","b"]`, `["b","a"]`), true},
		"scalar and list of one":      {trust, replace(trust, `"sts.amazonaws.com"`, `["sts.amazonaws.com"]`), true},
		"case of action and operator": {trust, replace(replace(trust, "sts:AssumeRoleWith", "STS:assumerolewith"), "StringEquals",
			"stringequals"), true},
		"a lone statement":        {trust, replace(replace(trust, `[{"Effect`, `{"Effect`), `}}}]}`, `}}}}`), true},
		"account id and its root": {cross, replace(cross, "arn:aws:iam::111122223333:root", "111122223333"), true},
		"another subject":         {trust, replace(trust, `"b"`, `"c"`), false},
		"one subject fewer":       {trust, replace(trust, `["a","b"]`, `"a"`), false},
		"case of a subject":       {trust, replace(trust, `"a"`, `"A"`), false},
		"the slash in the key":    {trust, replace(trust, `h/:sub`, `h:sub`), false},
		"another operator":        {trust, replace(trust, "StringEquals", "StringLike"), false},
		"without audience":        {trust, replace(trust, `"h/:aud":"sts.amazonaws.com",`, ``), false},
		"NotAction":               {trust, replace(trust, `"Action"`, `"NotAction"`), false},
		"NotPrincipal":            {trust, replace(trust, `"Principal"`, `"NotPrincipal"`), false},
		"Deny":                    {trust, replace(trust, `Allow`, `Deny`), false},
		"anyone":                  {cross, replace(cross, `{"AWS":"arn:aws:iam::111122223333:root"}`, `"*"`), false},
		"a role that was deleted": {cross, replace(cross, "arn:aws:iam::111122223333:root", "AROAEXAMPLE"), false},
		"an added statement":      {cross, replace(cross, `}]}`, `},{"Effect":"Allow","Principal":"*","Action":"sts:AssumeRole"}]}`), false},
		// IAM does not say which of the two counts.
		"an operator in two spellings": {trust, replace(trust, `{"StringEquals":`, `{"stringequals":{"h/:aud":"sts.amazonaws.com","h/`+
			`:sub":["a","b"]},"StringEquals":`), false},
		"and what the other holds":     {trust, replace(trust, `{"StringEquals":`, `{"stringequals":{"h/:sub":["c"]},"StringEquals":`), false},
		"case of a key":                {trust, replace(trust, `h/:sub`, `h/:SUB`), false},
		"a principal beside":           {trust, replace(trust, `{"Federated":`, `{"AWS":"*","Federated":`), false},
		"an older version":             {trust, replace(trust, `2012-10-17`, `2008-10-17`), false},
		"an added sid is a difference": {cross, replace(cross, `{"Effect"`, `{"Sid":"x","Effect"`), false},
	} {
		a, err := ParseDocument(row.a)
		if err != nil {
			t.Fatal(name, err)
		}
		b, err := ParseDocument(row.b)
		if err != nil {
			t.Fatal(name, err)
		}
		if Equal(a, b) != row.equal || Equal(b, a) != row.equal {
			t.Errorf("%s: Equal is not %v\n%s\n%s", name, row.equal, row.a, row.b)
		}
	}
	for _, bad := range []string{"", "null garbage", "%zz", `{"Statement":[{"Efect":"Allow"}]}`, `[]`,
		`{"Statement":[{"Effect":"Deny","Effect":"Allow"}]}`, `{"Statement":[{"Effect":"Deny","effect":"Allow"}]}`,
		`{"Statement":[{"Effect":"Allow","Condition":{"StringEquals":{"a":"b","a":"c"}}}]}`, `{"Statement":[]} {"Statement":[]}`} {
		if _, err := ParseDocument(bad); err == nil {
			t.Errorf("ParseDocument(%q): no error", bad)
		}
	}
}

func TestSubjectsAreThoseThatAreLetIn(t *testing.T) {
	d := TrustDocument(aksIssuer.ProviderARN("aws", "111122223333"), aksIssuer, "aud", []Subject{{"a", "x"}})
	equals := d.Statement[0].Condition["StringEquals"]
	equals[aksIssuer.Host()+":sub"] = append(
		equals[aksIssuer.Host()+":sub"],
		"system:serviceaccount:team-*:x",
		"system:serviceaccount:a:${*}",
		"alice",
	)
	testkit.Equal(t, "what no service account can be named", []Subject{{"a", "x"}}, d.Subjects(aksIssuer))
	d.Statement[0].Effect = "Deny"
	if got := d.Subjects(aksIssuer); got != nil {
		t.Errorf("denied, and yet %v", got)
	}
}

// FuzzDocument: whatever parses is equal to itself after a round trip.
func FuzzDocument(f *testing.F) {
	f.Add(`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":"*","Action":["a","b"],"Condition":{"Bool":{"k":true}}}}`)
	f.Fuzz(func(t *testing.T, text string) {
		d, err := ParseDocument(text)
		if err != nil {
			return
		}
		again, err := ParseDocument(d.String())
		if err != nil || !Equal(d, again) {
			t.Fatalf("%s\n%s: %v", d, again, err)
		}
		if !json.Valid([]byte(d.String())) {
			t.Fatalf("not JSON: %s", d)
		}
	})
}
