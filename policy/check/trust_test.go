package check

import (
	"strings"
	"testing"
	"time"

	"github.com/ampbridge/ampbridge/policy"
)

// trustTime is when the tests send a token.
var trustTime = time.Date(2026, 11, 29, 5, 0, 0, 0, time.UTC)

func TestTrust(t *testing.T) {
	good := policy.TrustDocument(provider, aks, audience, []policy.Subject{prometheus, {Namespace: "a", ServiceAccount: "b"}}).String()
	statement := strings.TrimSuffix(strings.TrimPrefix(good, `{"Version":"2012-10-17","Statement":[`), "]}")
	with := func(condition string) string { return strings.Replace(good, `"StringEquals":{`, condition, 1) }
	before := func(principal, condition string) string {
		return strings.Replace(good, "[{", `[{"Effect":"Deny","Principal":{`+principal+`},"Action":"sts:*","Condition":{`+condition+`}},{`, 1)
	}
	for _, c := range []struct {
		name     string
		document string
		status   Status
		message  string
	}{
		{"ours", good, Pass, "lets system:serviceaccount:monitoring:prometheus in"},
		{"beside another cluster's", strings.Replace(good, "[{", `[{"Effect":"Allow",`+
			`"Principal":{"Federated":"arn:aws:iam::111122223333:oidc-provider/example.com"},"Action":"sts:AssumeRoleWithWebIdentity",`+
			`"Condition":{"StringEquals":{"example.com:sub":"x"}}},{`, 1), Pass, "lets"},
		{"beside one that lets every pod in", strings.Replace(good, "[{", `[{"Effect":"Allow","Principal":{"Federated":"`+provider.String()+
			`"},"Action":"sts:AssumeRoleWithWebIdentity"},{`, 1), Fail, "and others too: statement 1: no condition on " + aks.Host() + ":sub"},
		{"beside a wildcard that covers it", strings.Replace(good, "[{", `[{"Effect":"Allow","Principal":{"Federated":"`+provider.String()+
			`"},"Action":"sts:*","Condition":{"StringLike":{"`+aks.Host()+`:sub":"system:serviceaccount:*"}}},{`, 1), Fail,
			"and others too: statement 1: StringLike"},
		{"beside another team's wildcard", strings.Replace(good, "[{", `[{"Effect":"Allow","Principal":{"Federated":"`+provider.String()+
			`"},"Action":"sts:*","Condition":{"StringLike":{"`+aks.Host()+`:sub":"system:serviceaccount:team:*"}}},{`, 1), Pass, "lets"},
		{"more conditions of this issuer", strings.Replace(good, `"StringEquals":{`, `"StringEquals":{"aws:RequestedRegion":"eu-west-1",`, 1),
			Warn, "statement 1 lets it in if StringEquals of aws:RequestedRegion is eu-west-1"},
		{"a tag of the session", with(`"StringEquals":{"aws:RequestTag/team":"obs",`), Warn, "if StringEquals of aws:RequestTag/team is obs"},
		{"an address of the caller", with(`"IpAddress":{"aws:SourceIp":"10.0.0.0/8"},"StringEquals":{`), Warn, "if IpAddress of aws:SourceIp"},
		{"until last year", with(`"DateLessThan":{"aws:CurrentTime":"2025-01-01T00:00:00Z"},"StringEquals":{`), Fail,
			"its condition DateLessThan of aws:CurrentTime is 2025-01-01T00:00:00Z does not hold"},
		{"until next year", with(`"DateLessThan":{"aws:CurrentTime":"2027-01-01"},"StringEquals":{`), Pass, "lets"},
		{"until last year, in seconds", with(`"DateLessThan":{"aws:CurrentTime":"1735689600"},"StringEquals":{`), Fail, "does not hold"},
		{"until a month", with(`"DateLessThan":{"aws:CurrentTime":"2027-01"},"StringEquals":{`), Pass, "lets"},
		{"until a time that cannot be read", with(`"DateLessThan":{"aws:CurrentTime":"tomorrow"},"StringEquals":{`), Warn,
			"if DateLessThan of aws:CurrentTime is tomorrow"},
		{"denied since a time in seconds", before(`"AWS":"*"`, `"DateGreaterThan":{"aws:CurrentTime":1735689600}`), Fail,
			"statement 1 denies them"},
		{"denied since a time that cannot be read", before(`"AWS":"*"`, `"DateGreaterThan":{"aws:CurrentTime":"20250101T000000Z"}`), Warn,
			"statement 1 denies it if"},
		{"without a claim that no token has", with(`"Null":{"` + aks.Host() + `:amr":"true"},"StringEquals":{`), Pass, "lets"},
		{"without the subject", with(`"Null":{"` + aks.Host() + `:sub":"true"},"StringEquals":{`), Fail, "Null of "},
		{"all values of no claim", with(`"ForAllValues:StringEquals":{"` + aks.Host() + `:amr":"x"},"StringEquals":{`), Pass, "lets"},
		{"any value of no claim", with(`"ForAnyValue:StringNotEquals":{"` + aks.Host() + `:amr":"x"},"StringEquals":{`), Fail,
			"never applies"},
		{"any value of no claim, if it exists", with(`"ForAnyValue:StringEqualsIfExists":{"` + aks.Host() + `:amr":"x"},"StringEquals":{`),
			Warn, "if ForAnyValue:StringEqualsIfExists"},
		{"not a number of no claim", with(`"NumericNotEquals":{"` + aks.Host() + `:amr":1},"StringEquals":{`), Pass, "lets"},
		{"not this subject", with(`"StringNotEquals":{"` + aks.Host() + `:sub":"` + prometheus.String() + `"},"StringEquals":{`), Fail,
			"its condition StringNotEquals of "},
		{"denied to this subject", before(`"Federated":"`+provider.String()+`"`, `"StringEquals":{"`+aks.Host()+`:sub":"`+
			prometheus.String()+`"}`), Fail, "statement 1 denies them to system:serviceaccount:monitoring:prometheus"},
		{"denied to everybody", before(`"AWS":"*"`, ""), Fail, "statement 1 denies them"},
		{"denied to others", before(`"Federated":"`+provider.String()+`"`, `"StringNotEquals":{"`+aks.Host()+`:sub":"`+prometheus.String()+
			`"}`), Pass, "lets"},
		{"denied to another provider", before(`"Federated":"arn:aws:iam::111122223333:oidc-provider/example.com"`, ""), Pass, "lets"},
		{"denied by a condition that is not known here", before(`"AWS":"*"`, `"Bool":{"aws:MultiFactorAuthPresent":"false"}`), Warn,
			"statement 1 denies it if Bool of aws:MultiFactorAuthPresent"},
		{"denied to all but an account", strings.Replace(good, "[{", `[{"Sid":"Mine","Effect":"Deny","NotPrincipal":{"AWS":`+
			`"arn:aws:iam::111122223333:root"},"Action":"sts:AssumeRoleWithWebIdentity"},{`, 1), Fail, "statement Mine denies them"},
		{"every call is allowed", strings.Replace(good, `"sts:AssumeRoleWithWebIdentity"`, `"sts:*"`, 1), Pass, "lets"},
		{"a claim that no token has", strings.Replace(good, `/:aud"`, `/:aux"`, 1), Fail, "never applies"},
		{"ForAnyValue", strings.Replace(good, "StringEquals", "ForAnyValue:StringEquals", 1), Pass, "lets"},
		{"keys in upper case", strings.ReplaceAll(good, "uuid/:", "UUID/:"), Pass, "lets"},
		{"a wildcard under a key in upper case", with(`"StringLike":{"` + aks.Host() + `:SUB":["` + prometheus.String() +
			`","*"]},"StringEquals":{`),
			Fail, "lets in whatever"},
		{"IfExists under a key in upper case", with(`"StringEqualsIfExists":{"` + aks.Host() + `:Sub":"` + prometheus.String() +
			`"},"StringEquals":{`), Fail, "also passes without the claim"},
		{"not JSON", "{", Fail, "cannot be read"},
		{"for somebody else", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"111122223333"},` +
			`"Action":"sts:AssumeRole"}]}`, Fail, "no statement of it allows"},
		{"closed by sync", `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Principal":{"Federated":"` + provider.String() +
			`"},"Action":"sts:AssumeRoleWithWebIdentity"}]}`, Fail, "it denies web identities: statement 1 denies them"},
		{"closed to others alone", `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Principal":{"Federated":"x"},` +
			`"Action":"sts:AssumeRoleWithWebIdentity"}]}`, Fail, "no statement of it allows"},
		{"principal", strings.Replace(good, provider.String(), "arn:aws:iam::111122223333:oidc-provider/example.com", 1), Fail,
			"Principal.Federated is arn:aws:iam::111122223333:oidc-provider/example.com"},
		{"no principal", strings.Replace(good, `"Principal":{"Federated":"`+provider.String()+`"},`, "", 1), Fail,
			"Principal.Federated is missing"},
		{"subject", strings.ReplaceAll(good, "monitoring:prometheus", "monitoring:grafana"), Fail,
			"and not system:serviceaccount:monitoring:prometheus"},
		{"format", strings.ReplaceAll(good, "system:serviceaccount:monitoring:prometheus", "monitoring:prometheus"), Fail,
			"which no token has"},
		{"slash in the key", strings.ReplaceAll(good, "uuid/:", "uuid:"), Fail, "the slash before"},
		{"key of another issuer", strings.ReplaceAll(good, "uuid/:", "other/:"), Fail, "of another issuer, so it can never match: it must be " +
			aks.Host() + ":"},
		{"not a claim of another issuer", with(`"StringNotEquals":{"example.com:sub":"x"},"StringEquals":{`), Pass, "lets"},
		{"no :sub", strings.Replace(good, `/:sub"`, `/:amr"`, 1), Fail, "every pod of the cluster is let in"},
		{"no :aud", strings.Replace(good, `"`+aks.Host()+`:aud":"`+audience+`",`, "", 1), Warn,
			"STS takes tokens of every audience that is registered with the provider"},
		{"no :aud and no subject", strings.Replace(strings.Replace(good, `"`+aks.Host()+`:aud":"`+audience+`",`, "", 1),
			"monitoring", "x", 1), Fail, "its :sub lets in"},
		{"wrong :aud", strings.Replace(good, audience, policy.AudienceAzure, 1), Fail, "it is api://AzureADTokenExchange"},
		{"IfExists", strings.Replace(good, "StringEquals", "StringEqualsIfExists", 1), Fail, "also passes without the claim"},
		{"ForAllValues", strings.Replace(good, "StringEquals", "ForAllValues:StringEquals", 1), Fail, "also passes without the claim"},
		{"wildcard", strings.ReplaceAll(strings.Replace(good, "StringEquals", "StringLike", 1), "monitoring:prometheus", "monitoring:*"), Fail,
			"lets in whatever"},
		{"StringLike without one", strings.Replace(good, "StringEquals", "StringLike", 1), Pass, "lets"},
		{"a statement without a list", strings.Replace(good, "["+statement+"]", statement, 1), Pass, "lets"},
	} {
		t.Run(c.name, func(t *testing.T) {
			judged(t, Trust(c.document, WantedTrust{provider, aks, audience, prometheus, trustTime}, NewFix("sync")), c.status, c.message)
		})
	}
}

func TestExceedsQuota(t *testing.T) {
	var many []policy.Subject
	for n := range 30 {
		many = append(
			many,
			policy.Subject{Namespace: "monitoring", ServiceAccount: "prometheus-" + string(rune('a'+n%26)) + strings.Repeat("x", n)},
		)
	}
	want := WantedTrust{provider, aks, audience, prometheus, trustTime}
	for n, full := range map[int]bool{1: false, 30: true} {
		if got := want.ExceedsQuota(policy.TrustDocument(provider, aks, audience, many[:n]).String(), 2048); got != full {
			t.Errorf("%d subjects: %v", n, got)
		}
	}
}

// A new trust document keeps the statements of others: of other clusters, of services and of
// people.
func TestMergeTrust(t *testing.T) {
	want := WantedTrust{provider, aks, audience, prometheus, trustTime}
	ours := policy.TrustDocument(provider, aks, audience, []policy.Subject{prometheus})
	const others = `{"Effect":"Allow","Principal":{"Federated":"arn:aws:iam::111122223333:oidc-provider/example.com"},` +
		`"Action":"sts:AssumeRoleWithWebIdentity"},{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:role/admin"},` +
		`"Action":"sts:AssumeRole"}`
	mistaken := `{"Effect":"Allow","Principal":{"Federated":"` + provider.String() + `"},"Action":"sts:AssumeRoleWithWebIdentity"}`
	denied := `{"Effect":"Deny","Principal":"*","Action":"sts:AssumeRoleWithWebIdentity"}`
	for name, c := range map[string]struct {
		statements string
		kept       int
	}{
		"only ours":                    {mistaken, 0},
		"others' too":                  {others + "," + mistaken, 2},
		"others', and one that denies": {denied + "," + others, 2},
		"one that denies under a condition": {strings.Replace(denied, "}", `,"Condition":{"StringNotEquals":{"`+aks.Host()+`:aud":"`+
			audience+`"}}}`, 1) + "," + mistaken, 1},
	} {
		merged := want.MergeTrust(`{"Statement":[`+c.statements+`]}`, ours)
		if len(merged.Statement) != c.kept+1 {
			t.Errorf("%s: %s", name, merged)
		}
		judged(t, Trust(merged.String(), want, NewFix("sync")), Pass, "lets")
	}
	shared := strings.Replace(mistaken, `{"Federated":"`+provider.String()+`"}`,
		`{"Federated":["`+provider.String()+`","arn:aws:iam::111122223333:oidc-provider/example.com"],"AWS":"111122223333"}`, 1)
	if got := want.MergeTrust(`{"Statement":[`+shared+`]}`, ours).String(); !strings.Contains(got,
		`"Principal":{"AWS":"111122223333","Federated":"arn:aws:iam::111122223333:oidc-provider/example.com"}`) {
		t.Errorf("a statement with other principals: %s", got)
	}
	if got := want.MergeTrust("{", ours).String(); got != ours.String() {
		t.Errorf("of a document that cannot be read: %s", got)
	}
}
