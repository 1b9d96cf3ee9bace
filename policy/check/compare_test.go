package check

import (
	"strings"
	"testing"
	"time"

	"github.com/ampbridge/ampbridge/policy"
)

// marked returns a value with its differing parts in brackets.
func marked(segments []Segment) string {
	var b strings.Builder
	for _, s := range segments {
		if s.Differs {
			b.WriteString("[" + s.Text + "]")
		} else {
			b.WriteString(s.Text)
		}
	}
	return b.String()
}

func TestSegmentsMarkWhatDiffers(t *testing.T) {
	const issuer = "https://westeurope.oic.prod-aks.azure.com/1111/6666"
	for _, c := range []struct {
		name                      string
		found, wanted             string
		markedFound, markedWanted string
		words                     string
	}{
		{"a slash is missing at the end of an issuer", issuer, issuer + "/", issuer + "[]", issuer + "[/]", `"/" is missing`},
		{"a slash too many at the end of an issuer", issuer + "/", issuer, issuer + "[/]", issuer + "[]", `"/" is too much`},
		{"a slash in a condition key", "host/6666:sub", "host/6666/:sub", "host/6666[]:sub", "host/6666[/]:sub",
			`"/" is missing`},
		{"the case of a subject", "system:serviceaccount:Monitoring:prometheus",
			"system:serviceaccount:monitoring:prometheus",
			"system:serviceaccount:[M]onitoring:prometheus", "system:serviceaccount:[m]onitoring:prometheus", `"M" must be "m"`},
		{"the case of two letters", "Monitoring:Prometheus-server", "monitoring:prometheus-server",
			"[M]onitoring:[P]rometheus-server", "[m]onitoring:[p]rometheus-server", "upper and lower case count"},
		{"another service account", "system:serviceaccount:monitoring:grafana", "system:serviceaccount:monitoring:prometheus",
			"system:serviceaccount:monitoring:[grafana]", "system:serviceaccount:monitoring:[prometheus]",
			`"grafana" must be "prometheus"`},
		{"two digits of an ARN", "arn:aws:iam::111122223333:role/a", "arn:aws:iam::111152226333:role/a",
			"arn:aws:iam::1111[2]222[3]333:role/a", "arn:aws:iam::1111[5]222[6]333:role/a", ""},
		{"another partition", "arn:aws-cn:iam::1:role/a", "arn:aws:iam::1:role/a", "arn:aws[-cn]:iam::1:role/a",
			"arn:aws[]:iam::1:role/a",
			`"-cn" is too much`},
		{"nothing in common", "api://AzureADTokenExchange", "sts.amazonaws.com", "[api://AzureADTokenExchange]",
			"[sts.amazonaws.com]", ""},
		{"a letter that looks the same", "sts.аmazonaws.com", "sts.amazonaws.com", "sts.[а]mazonaws.com",
			"sts.[a]mazonaws.com",
			`"\u0430" must be "a"`},
		{"a line feed at the end", "sts.amazonaws.com\n", "sts.amazonaws.com", "sts.amazonaws.com[\n]", "sts.amazonaws.com[]",
			`"\n" is too much`},
		{"a repeated letter", "aab", "aaab", "aa[]b", "aa[a]b", `"a" is missing`},
		{"nothing at all", "", "a", "[]", "[a]", `"a" is missing`},
		{"the same", "a", "a", "a", "a", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			compared := Comparison{Found: c.found, Wanted: c.wanted}
			found, wanted := compared.Segments()
			if f, w := marked(found), marked(wanted); f != c.markedFound || w != c.markedWanted {
				t.Errorf("%q and %q, want %q and %q", f, w, c.markedFound, c.markedWanted)
			}
			if words := compared.String(); words != c.words {
				t.Errorf("in words: %q, want %q", words, c.words)
			}
			// The joined parts are the values, and both values have the same number of parts.
			if f, w := joined(found), joined(wanted); f != c.found || w != c.wanted || len(found) != len(wanted) {
				t.Errorf("%d parts of %q, %d parts of %q", len(found), f, len(wanted), w)
			}
		})
	}
}

func joined(segments []Segment) (text string) {
	for _, s := range segments {
		text += s.Text
	}
	return text
}

func FuzzSegments(f *testing.F) {
	f.Add("https://a/", "https://a")
	f.Add("ab", "ba")
	f.Fuzz(func(t *testing.T, a, b string) {
		a, b = strings.ToValidUTF8(a, "?"), strings.ToValidUTF8(b, "?")
		found, wanted := Comparison{Found: a, Wanted: b}.Segments()
		if joined(found) != a || joined(wanted) != b || len(found) != len(wanted) {
			t.Fatalf("%q and %q became %v and %v", a, b, found, wanted)
		}
		differs := false
		for i := range found {
			if found[i].Differs != wanted[i].Differs || found[i].Differs == (found[i].Text == wanted[i].Text) {
				t.Errorf("part %d of %v and %v", i, found, wanted)
			}
			differs = differs || found[i].Differs
		}
		if differs != (a != b) {
			t.Errorf("%q and %q: differ %v", a, b, differs)
		}
	})
}

func TestComparingTakesTheMostSimilarValue(t *testing.T) {
	f := Failed(OIDCProvider, About{}, Fix{}, "").Comparing("audience", "sts.amazonaws.com", "other",
		"sts.amazonaws.com/", "")
	if f.Compared == nil || f.Compared.Found != "sts.amazonaws.com/" || f.Compared.Wanted != "sts.amazonaws.com" {
		t.Errorf("compared: %+v", f.Compared)
	}
	for name, found := range map[string][]string{"none": nil, "the same": {"other", "sts.amazonaws.com"}} {
		if f := (Finding{}).Comparing("audience", "sts.amazonaws.com", found...); f.Compared != nil {
			t.Errorf("%s: compared %+v", name, f.Compared)
		}
	}
}

// Every judgement that compares values names both, so that a reader sees where they differ.
func TestJudgementsCompareTheValues(t *testing.T) {
	const host = "oic.example/1111/"
	provider := policy.ARN{Partition: "aws", Service: "iam", Account: "111122223333", Resource: "oidc-provider/" + host}
	similar := provider
	similar.Resource = strings.TrimSuffix(provider.Resource, "/")
	workspace := policy.ARN{Partition: "aws", Service: "aps", Region: "eu-west-1", Account: "111122223333",
		Resource: "workspace/ws-1"}
	want := WantedTrust{
		Provider: provider, Issuer: "https://" + host, Audience: "sts.amazonaws.com",
		Subject: policy.Subject{Namespace: "monitoring", ServiceAccount: "prometheus"},
	}
	trust := func(provider policy.ARN, issuer policy.Issuer, audience string, s policy.Subject) Finding {
		return Trust(policy.TrustDocument(provider, issuer, audience, []policy.Subject{s}).String(), want, Fix{})
	}
	claims := Claims{Issuer: want.Issuer, Subject: want.Subject.String(), Audience: []string{want.Audience}}
	wanted := WantedToken{Issuer: want.Issuer, Subject: want.Subject.String(), Audience: want.Audience}
	token := func(change func(*Claims)) Finding {
		changed := claims
		change(&changed)
		return Token(changed, wanted, time.Unix(0, 0))
	}
	destination := policy.Destination{Workspace: policy.Workspace{ARN: workspace}}
	allowing := func(resource string) []RolePolicy {
		return []RolePolicy{{Document: policy.Document{Statement: []policy.Statement{{
			Effect: "Allow", Action: destination.Actions(), Resource: policy.Values{resource},
		}}}}}
	}
	exists := ProviderState{Exists: true, URL: host, Audiences: []string{want.Audience}, Thumbprints: []string{"00ff"}}
	other := policy.Subject{Namespace: "monitoring", ServiceAccount: "grafana"}
	for _, c := range []struct {
		name          string
		finding       Finding
		what          string
		found, wanted string
	}{
		{"the policy's issuer", Issuer("https://oic.example/1111", want.Issuer), "issuer", "https://oic.example/1111[]",
			"https://" +
				"oic.example/1111[/]"},
		{"the published issuer", Keys(want.Issuer, Published{Issuer: "https://oic.example/1111"}, Claims{}), "issuer",
			"https://oic.example/1111[]", "https://oic.example/1111[/]"},
		{"a token's issuer", token(func(c *Claims) { c.Issuer = "https://oic.example/2222/" }), "issuer",
			"https://oic.example/[2222]/",
			"https://oic.example/[1111]/"},
		{"a token's subject", token(func(c *Claims) { c.Subject = other.String() }), "subject",
			"system:serviceaccount:monitoring:[grafana]", "system:serviceaccount:monitoring:[prometheus]"},
		{"a token's audience", token(func(c *Claims) { c.Audience = []string{"sts.amazonaws.com/"} }), "audience",
			"sts.amazonaws.com[/]",
			"sts.amazonaws.com[]"},
		{"Azure's audience", token(func(c *Claims) { c.Audience = []string{policy.AudienceAzure} }), "audience",
			"[api://AzureADTokenExchange]", "[sts.amazonaws.com]"},
		{"a provider without the slash", Provider(provider, want.Audience, ProviderState{Others: []policy.ARN{similar}},
			Published{}, Fix{}),
			"provider", similar.String() + "[]", similar.String() + "[/]"},
		{"a provider's URL", Provider(provider, want.Audience, ProviderState{Exists: true, URL: "oic.example/1111"},
			Published{}, Fix{}),
			"issuer", "oic.example/1111[]", "oic.example/1111[/]"},
		{"a provider's audience", Provider(provider, "sts.amazonaws.com.cn", exists, Published{}, Fix{}), "audience",
			"sts.amazonaws.com[]", "sts.amazonaws.com[.cn]"},
		{"a provider's thumbprint", Provider(provider, want.Audience, exists, Published{Thumbprint: "00fe"}, Fix{}),
			"thumbprint", "00f[f]",
			"00f[e]"},
		{"trust of another provider", trust(similar, want.Issuer, want.Audience, want.Subject), "provider",
			similar.String() + "[]",
			similar.String() + "[/]"},
		{"a trust document's key", trust(provider, "https://oic.example/1111", want.Audience, want.Subject), "condition key",
			"oic.example/1111[]:aud", "oic.example/1111[/]:aud"},
		{"a trust document's subject", trust(provider, want.Issuer, want.Audience, other), "subject",
			"system:serviceaccount:monitoring:[grafana]", "system:serviceaccount:monitoring:[prometheus]"},
		{"a trust document's audience", trust(provider, want.Issuer, "sts.amazonaws.com.", want.Subject), "audience",
			"sts.amazonaws.com[.]", "sts.amazonaws.com[]"},
		{"a permission's resource", Permission(allowing(workspace.String()+"2"), "", destination, Fix{}), "resource",
			workspace.String() + "[2]", workspace.String() + "[]"},
		{"a role's boundary", Bounds(BoundaryState{ARN: "arn:aws:iam::1:policy/B"}, "arn:aws:iam::1:policy/b", destination,
			Fix{}, Fix{}),
			"boundary", "arn:aws:iam::1:policy/[B]", "arn:aws:iam::1:policy/[b]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			compared := c.finding.Compared
			if c.finding.Status != Fail || compared == nil {
				t.Fatalf("%s: %s, compared: %v", c.finding.Status, c.finding.Message, compared)
			}
			found, wanted := compared.Segments()
			if f, w := marked(found), marked(wanted); compared.What != c.what || f != c.found || w != c.wanted {
				t.Errorf("%s: %s and %s, want %s: %s and %s", compared.What, f, w, c.what, c.found, c.wanted)
			}
		})
	}
	if f := token(func(*Claims) {}); f.Compared != nil {
		t.Errorf("equal values are compared: %+v", f.Compared)
	}
}
