package check

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/ampbridge/ampbridge/policy"
)

const (
	aks      = policy.Issuer("https://westeurope.oic.prod-aks.azure.com/tenant/uuid/")
	audience = "sts.amazonaws.com"
)

var (
	prometheus  = policy.Subject{Namespace: "monitoring", ServiceAccount: "prometheus"}
	provider    = aks.ProviderARN("aws", "111122223333")
	destination = policy.Destination{Name: "central", Workspace: policy.Workspace{ARN: policy.ARN{
		Partition: "aws", Service: "aps", Region: "eu-west-1", Account: "111122223333", Resource: "workspace/ws-1",
	}}}
	second = policy.ARN{Partition: "aws", Service: "iam", Account: "444455556666", Resource: "role/second"}
)

// judged fails the test if the finding has another status or lacks the message.
func judged(t *testing.T, f Finding, status Status, message string) {
	t.Helper()
	if f.Status != status || !strings.Contains(f.Message, message) {
		t.Errorf("%s: %s\nwant %s: …%s…", f.Status, f.Message, status, message)
	}
	if broken := f.Status == Fail || f.Status == Warn; broken && f.Fix == nil || f.Status == Pass && f.Fix != nil {
		t.Errorf("%s, fix %v", f.Status, f.Fix)
	}
	if f.Fix != nil && f.Fix.Summary == "" {
		t.Errorf("%s: the fix has no summary", f.Message)
	}
}

func TestIssuer(t *testing.T) {
	for _, c := range []struct {
		name         string
		named, found policy.Issuer
		status       Status
		message      string
	}{
		{"left to the cluster", "", aks, Pass, string(aks)},
		{"the same", aks, aks, Pass, string(aks)},
		{"no slash", "https://westeurope.oic.prod-aks.azure.com/tenant/uuid", aks, Fail, "the slash at the end"},
		{"case", "https://westeurope.oic.prod-aks.azure.com/Tenant/uuid/", aks, Fail, "upper and lower case"},
		{"another", "https://example.com", aks, Fail, "the policy's issuer is https://example.com"},
		{"none that AWS takes", "", "https://kubernetes.default.svc:6443", Fail, "port"},
	} {
		t.Run(c.name, func(t *testing.T) { judged(t, Issuer(c.named, c.found), c.status, c.message) })
	}
}

func TestKeys(t *testing.T) {
	good := Published{Issuer: aks, JWKSURI: "https://example.com/keys", Keys: []string{"one"}, Signed: true, Public: true, Thumbprint: "aa"}
	token := Claims{KeyID: "one"}
	for _, c := range []struct {
		name    string
		change  func(*Published)
		token   Claims
		status  Status
		message string
	}{
		{"good", func(*Published) {}, token, Pass, "this machine trusts its certificate"},
		{"private CA", func(p *Published) { p.Public = false }, token, Pass, "a private CA, thumbprint aa"},
		{"not found", func(p *Published) { p.Problem = "404 Not Found" }, token, Fail, "404 Not Found"},
		{"not reached from this machine", func(p *Published) { p.Problem, p.Unreached = "no such host", true }, token, Skip,
			"this machine could not reach the issuer"},
		{"of another issuer", func(p *Published) { p.Issuer = "https://example.com" }, token, Fail, "is that of https://example.com"},
		{"http", func(p *Published) { p.JWKSURI = "http://example.com/keys" }, token, Fail, "accepts only https"},
		{"rotated", func(p *Published) { p.Signed = false }, token, Fail, "none of the published keys"},
		{"under another key ID", func(p *Published) { p.Signed, p.OtherID = false, `"two"` }, token, Fail, `published with the kid "two"`},
		{"without a key ID", func(p *Published) { p.Signed, p.OtherID = false, `""` }, token, Fail, `published with the kid ""`},
		{"no token to verify", func(p *Published) { p.Signed = false }, Claims{}, Pass, "1 published"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := good
			c.change(&p)
			judged(t, Keys(aks, p, c.token), c.status, c.message)
		})
	}
}

// jwt returns a token with an invalid signature.
func jwt(t *testing.T, header, body map[string]any) string {
	t.Helper()
	part := func(v any) string {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(text)
	}
	return part(header) + "." + part(body) + ".c2lnbmF0dXJl"
}

func TestToken(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	want := WantedToken{Issuer: aks, Subject: prometheus.String(), Audience: audience, Source: "the file"}
	issued := func(after time.Duration) map[string]any { return map[string]any{"iat": now.Add(after).Unix()} }
	for _, c := range []struct {
		name    string
		alg     string
		body    map[string]any
		status  Status
		message string
	}{
		{"good", "RS256", map[string]any{}, Pass, "for 10 minutes more"},
		{"one audience of several", "ES256", map[string]any{"aud": []string{"other", audience}}, Pass, "other, sts.amazonaws.com"},
		{"audience as text", "RS256", map[string]any{"aud": audience}, Pass, audience},
		{"wrong issuer", "RS256", map[string]any{"iss": "https://example.com"}, Fail, "its issuer is https://example.com"},
		{"wrong subject", "RS256", map[string]any{"sub": "system:serviceaccount:a:b"}, Fail, "its subject is"},
		{"wrong audience", "RS256", map[string]any{"aud": "vault"}, Fail, "its audience is vault"},
		{"Azure's", "RS256", map[string]any{"aud": policy.AudienceAzure}, Fail, "Azure's webhook"},
		{"expired", "RS256", map[string]any{"exp": now.Unix()}, Fail, "it expired at 1970-01-12"},
		{"signed with something else", "EdDSA", map[string]any{}, Fail, "EdDSA"},
		{"issued an hour ago", "RS256", issued(-time.Hour), Pass, "for 10 minutes more"},
		{"of a clock a little ahead", "RS256", issued(4 * time.Minute), Pass, "for 10 minutes more"},
		{"of the future", "RS256", map[string]any{"iat": now.Add(2 * time.Hour).Unix(), "exp": now.Add(3 * time.Hour).Unix()}, Warn,
			"this machine's clock is 2 hours behind the API server's"},
	} {
		t.Run(c.name, func(t *testing.T) {
			body := map[string]any{
				"iss": aks,
				"sub": prometheus.String(),
				"aud": []string{audience},
				"exp": now.Add(10 * time.Minute).Unix(),
			}
			maps.Copy(body, c.body)
			claims, err := ReadClaims(jwt(t, map[string]any{"alg": c.alg, "kid": "one"}, body) + "\n")
			if err != nil {
				t.Fatal(err)
			}
			judged(t, Token(claims, want, now), c.status, c.message)
		})
	}
}

// A token that the API server just issued shows whether this machine's clock is right. A wrong
// clock is a warning, because AWS judges the token by its own clock.
func TestTokenOfAnotherClock(t *testing.T) {
	at := time.Unix(1_000_000, 0)
	fresh := Claims{Subject: prometheus.String(), Audience: []string{audience}, Issued: at, Expires: at.Add(10 * time.Minute)}
	for _, c := range []struct {
		name    string
		ahead   time.Duration
		change  func(*Claims)
		status  Status
		message string
	}{
		{"right", 3 * time.Second, nil, Pass, "for 10 minutes more"},
		{"a little ahead", 4 * time.Minute, nil, Pass, "for 6 minutes more"},
		{"a little behind", -4 * time.Minute, nil, Pass, "for 14 minutes more"},
		{"the token seems to expire soon", 7 * time.Minute, nil, Warn, "this machine's clock is 7 minutes ahead of the API server's"},
		{"the token seems expired", 11 * time.Minute, nil, Warn, "this machine's clock is 11 minutes ahead of the API server's"},
		{"the token seems of the future", -3 * time.Hour, nil, Warn, "this machine's clock is 3 hours behind the API server's"},
		{"ahead, and issued expired", time.Hour, func(c *Claims) { c.Expires = at }, Fail, "it expired at 1970-01-12T13:46:40Z"},
		{"ahead, with another audience", time.Hour, func(c *Claims) { c.Audience = []string{"vault"} }, Fail, "its audience is vault"},
		{"ahead, without a time of issue", 11 * time.Minute, func(c *Claims) { c.Issued = time.Time{} }, Fail, "it expired at"},
	} {
		t.Run(c.name, func(t *testing.T) {
			claims := fresh
			if c.change != nil {
				c.change(&claims)
			}
			want := WantedToken{Audience: audience, Source: "minted by TokenRequest", New: true}
			judged(t, Token(claims, want, at.Add(c.ahead)), c.status, c.message)
		})
	}
}

func TestReadClaimsShowsNothing(t *testing.T) {
	for _, text := range []string{"", "hunter2", "a.b", "!!.??.c", "aGk.aGk.aGk", strings.Repeat("secret.", 5)} {
		if c, err := ReadClaims(text); err == nil {
			t.Errorf("%q: %v", text, c)
		} else if text != "" && strings.Contains(err.Error(), text) {
			t.Errorf("the error shows it: %v", err)
		}
	}
}

func TestProvider(t *testing.T) {
	good := ProviderState{Exists: true, URL: aks.Host(), Audiences: []string{"x", audience}, Thumbprints: []string{"AA"}}
	var many []policy.ARN
	for range ProviderQuota {
		many = append(many, policy.Issuer("https://example.com/x").ProviderARN("aws", "111122223333"))
	}
	for _, c := range []struct {
		name      string
		seen      ProviderState
		published Published
		status    Status
		message   string
	}{
		{"good", good, Published{Public: true, Thumbprint: "bb"}, Pass, audience},
		{"its CA", good, Published{Thumbprint: "aa"}, Pass, audience},
		{"another CA", good, Published{Thumbprint: "bb"}, Fail, "with the thumbprint bb, and the provider lists AA"},
		{"issuer not read", good, Published{}, Pass, audience},
		{"no audience", ProviderState{Exists: true, URL: aks.Host()}, Published{}, Fail, "its audiences are none"},
		{"another URL", ProviderState{Exists: true, URL: "example.com"}, Published{}, Fail, "is for example.com"},
		{"none", ProviderState{}, Published{}, Fail, "there is no " + provider.String()},
		{"no slash", ProviderState{Others: []policy.ARN{policy.Issuer(strings.TrimSuffix(string(aks), "/")).ProviderARN("aws",
			"111122223333")}}, Published{}, Fail, "the slash at the end counts"},
		{"quota", ProviderState{Others: many}, Published{}, Fail, "100 OIDC providers"},
	} {
		t.Run(c.name, func(t *testing.T) {
			judged(t, Provider(provider, audience, c.seen, c.published, NewFix("sync")), c.status, c.message)
		})
	}
}

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

func TestPermission(t *testing.T) {
	chained := destination
	chained.AssumeRole = second
	for _, c := range []struct {
		name        string
		documents   []string
		destination policy.Destination
		status      Status
		message     string
	}{
		{"ours", []string{policy.PermissionDocument(destination).String()}, destination, Pass, "allows aps:RemoteWrite"},
		{"ours, chained", []string{policy.PermissionDocument(chained).String()}, chained, Pass, "allows sts:AssumeRole on " + second.String()},
		{"not the chain's", []string{policy.PermissionDocument(destination).String()}, chained, Fail, "nothing in it allows sts:AssumeRole"},
		{"AWS's managed policy", []string{`{"Statement":[{"Action":["aps:RemoteWrite"],"Effect":"Allow","Resource":"*"}]}`}, destination, Pass,
			"allows"},
		{"wildcards, cases", []string{`{"Statement":[{"Action":"APS:remote*","Effect":"Allow",` +
			`"Resource":"arn:aws:aps:eu-west-?:*:workspace/ws-*"}]}`}, destination, Pass, "allows"},
		{"NotAction", []string{`{"Statement":[{"NotAction":"iam:*","Effect":"Allow","Resource":"*"}]}`}, destination, Pass, "allows"},
		{"NotResource", []string{`{"Statement":[{"Action":"aps:*","Effect":"Allow","NotResource":"*/ws-1"}]}`}, destination, Fail,
			"nothing in it"},
		{"another workspace", []string{`{"Statement":[{"Action":"aps:RemoteWrite","Effect":"Allow","Resource":"arn:x"}]}`}, destination, Fail,
			"on arn:x, and not on"},
		{"denied elsewhere", []string{policy.PermissionDocument(destination).String(), `{"Statement":[{"Action":"*","Effect":"Deny",` +
			`"Resource":"*"}]}`}, destination, Fail, "a policy of the role denies"},
		{"a condition decides", []string{`{"Statement":[{"Action":"aps:RemoteWrite","Effect":"Allow","Resource":"*",` +
			`"Condition":{"IpAddress":{"aws:SourceIp":"192.0.2.0/24"}}}]}`}, destination, Warn, "conditions decide"},
		{"a condition may deny", []string{policy.PermissionDocument(destination).String(), `{"Statement":[{"Action":"*",` +
			`"Effect":"Deny","Resource":"*","Condition":{"Bool":{"aws:MultiFactorAuthPresent":"false"}}}]}`}, destination, Warn,
			"statement 1 denies it if Bool of aws:MultiFactorAuthPresent is false"},
		{"allowed for a claim of the session", []string{`{"Statement":[{"Action":"aps:*","Effect":"Allow","Resource":"*",` +
			`"Condition":{"StringEquals":{"example.com:aud":"sts.amazonaws.com"}}}]}`}, destination, Warn,
			"statement 1 allows it if StringEquals of example.com:aud"},
		{"denied for a claim of the session", []string{policy.PermissionDocument(destination).String(), `{"Statement":[{"Action":"*",` +
			`"Effect":"Deny","Resource":"*","Condition":{"StringNotEquals":{"example.com:sub":"x"}}}]}`}, destination, Warn,
			"statement 1 denies it if StringNotEquals of example.com:sub"},
		{"a variable in the resource", []string{`{"Statement":[{"Action":"aps:*","Effect":"Allow",` +
			`"Resource":"arn:aws:aps:eu-west-1:${aws:PrincipalAccount}:workspace/*"}]}`}, destination, Warn,
			"statement 1 allows it if arn:aws:aps:eu-west-1:${aws:PrincipalAccount}:workspace/* is " + destination.Workspace.String()},
		{"a variable in a denied resource", []string{policy.PermissionDocument(destination).String(), `{"Statement":[{"Action":"*",` +
			`"Effect":"Deny","NotResource":"arn:aws:*:*:${aws:PrincipalAccount}:*"}]}`}, destination, Warn, "statement 1 denies it if"},
		{"a variable in another resource", []string{`{"Statement":[{"Action":"aps:*","Effect":"Allow",` +
			`"Resource":"arn:aws:aps:us-east-1:${aws:PrincipalAccount}:workspace/*"}]}`}, destination, Fail, "and not on"},
		{"many wildcards", []string{`{"Statement":[{"Action":"aps:*","Effect":"Allow","Resource":"arn:` +
			strings.Repeat("*a", 40) + `*!"}]}`}, destination, Fail, "and not on"},
		{"denied without TLS", []string{policy.PermissionDocument(destination).String(), `{"Statement":[{"Action":"*",` +
			`"Effect":"Deny","Resource":"*","Condition":{"Bool":{"aws:SecureTransport":"false"}}}]}`}, destination, Pass, "allows"},
		{"allowed in another region", []string{`{"Statement":[{"Action":"aps:*","Effect":"Allow","Resource":"*",` +
			`"Condition":{"StringEquals":{"aws:RequestedRegion":"us-east-1"}}}]}`}, destination, Fail,
			"StringEquals of aws:RequestedRegion is us-east-1"},
		{"allowed with and without a condition", []string{`{"Statement":[{"Action":"aps:*","Effect":"Allow","Resource":"*",` +
			`"Condition":{"IpAddress":{"aws:SourceIp":"192.0.2.0/24"}}}]}`, policy.PermissionDocument(destination).String()},
			destination, Pass, "allows"},
		{"none", nil, destination, Fail, "nothing in it allows"},
	} {
		t.Run(c.name, func(t *testing.T) {
			judged(t, Permission(rolePolicies(t, c.documents), "", c.destination, NewFix("sync")), c.status, c.message)
		})
	}
	// The message names the policies that sync did not write.
	ours := policy.PermissionDocument(destination).String()
	wide := `{"Statement":[{"Action":"s3:*","Effect":"Allow","Resource":"*"}]}`
	judged(t, Permission(rolePolicies(t, []string{ours}), "policy-0", destination, NewFix("sync")), Pass, "allows aps:RemoteWrite")
	judged(t, Permission(rolePolicies(t, []string{ours, wide, wide}), "policy-0", destination, NewFix("sync")), Warn,
		"policies that sync did not write and does not change: policy-1, policy-2")
	judged(t, Permission(rolePolicies(t, []string{ours, wide}), "", destination, NewFix("sync")), Pass,
		"by the policies policy-0, policy-1 together")
}

// rolePolicies returns policies with the names policy-0, policy-1 and so on.
func rolePolicies(t *testing.T, documents []string) (list []RolePolicy) {
	t.Helper()
	for i, text := range documents {
		d, err := policy.ParseDocument(text)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, RolePolicy{fmt.Sprint("policy-", i), d})
	}
	return list
}

func TestBounds(t *testing.T) {
	const arn = "arn:aws:iam::111122223333:policy/boundary"
	writes := policy.PermissionDocument(destination)
	reads := policy.Document{Statement: []policy.Statement{{Effect: "Allow", Action: policy.Values{"s3:*"}, Resource: policy.Values{"*"}}}}
	denies := policy.Document{Statement: []policy.Statement{{Effect: "Deny", Action: policy.Values{"aps:*"}, Resource: policy.Values{"*"}}}}
	for _, c := range []struct {
		name     string
		seen     BoundaryState
		wanted   string
		status   Status
		message  string
		commands int
	}{
		{"ours", BoundaryState{ARN: arn, Document: &writes}, arn, Pass, "allows aps:RemoteWrite", 0},
		{"none wanted", BoundaryState{}, "", Pass, "requires none", 0},
		{"one that is not required", BoundaryState{ARN: arn, Document: &writes}, "", Pass, "allows", 0},
		{"missing", BoundaryState{}, arn, Fail, "the role has none", 0},
		{"another", BoundaryState{ARN: "arn:x", Document: &writes}, arn, Fail, "the role's is arn:x", 0},
		{"too narrow", BoundaryState{ARN: arn, Document: &reads}, arn, Fail, "does not allow", 1},
		{"denies", BoundaryState{ARN: arn, Document: &denies}, arn, Fail, "does not allow", 0},
		{"unreadable", BoundaryState{ARN: arn, Problem: "AccessDenied"}, arn, Skip, "AccessDenied", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := Bounds(c.seen, c.wanted, destination, NewFix("sync"), NewFix("bootstrap"))
			judged(t, f, c.status, c.message)
			if f.Fix != nil && len(f.Fix.Commands) != c.commands {
				t.Errorf("commands %v, want %d", f.Fix.Commands, c.commands)
			}
		})
	}
}

// A reader needs all four permissions of a query, and no permission to write.
func TestReaders(t *testing.T) {
	const arn = "arn:aws:iam::111122223333:policy/boundary"
	reader, both := destination, destination
	reader.Access, both.Access = []policy.Access{policy.AccessQuery}, []policy.Access{policy.AccessWrite, policy.AccessQuery}
	writes, reads := policy.PermissionDocument(destination), policy.PermissionDocument(reader)
	some := policy.PermissionDocument(reader)
	some.Statement[0].Action = some.Statement[0].Action[:3]
	denies := policy.PermissionDocument(both)
	denies.Statement = append(denies.Statement,
		policy.Statement{Effect: "Deny", Action: policy.Values{"aps:GetLabels"}, Resource: policy.Values{"*"}})
	const queries = "aps:QueryMetrics, aps:GetSeries, aps:GetLabels, aps:GetMetricMetadata"
	for _, c := range []struct {
		name              string
		document          policy.Document
		d                 policy.Destination
		status            Status
		message, bounding string // bounding is what the fix of the boundary has
	}{
		{"a reader's", reads, reader, Pass, "allows " + queries + " on", ""},
		{"a writer's", writes, reader, Fail, "allows " + queries + " on", "bootstrap"},
		{"a writer's that reads from now on", writes, both, Fail, "allows " + queries + " on", "bootstrap"},
		{"a reader's that writes from now on", reads, both, Fail, "allows aps:RemoteWrite on", "let the boundary allow aps:RemoteWrite on"},
		{"not all of it", some, reader, Fail, "aps:GetMetricMetadata", "let the boundary allow aps:GetMetricMetadata on"},
		{"one denied", denies, both, Fail, "aps:GetLabels", "let the boundary allow aps:GetLabels on"},
	} {
		t.Run(c.name, func(t *testing.T) {
			document := c.document.String()
			f := Permission(rolePolicies(t, []string{document}), "", c.d, NewFix("sync"))
			if f.Status != c.status || !strings.Contains(f.Message, strings.TrimPrefix(c.message, "allows ")) {
				t.Errorf("permission: %s %q, want %s with %q", f.Status, f.Message, c.status, c.message)
			}
			f = Bounds(BoundaryState{ARN: arn, Document: &c.document}, arn, c.d, NewFix("sync"), NewFix("bootstrap"))
			if f.Status != c.status || c.bounding != "" && !strings.Contains(f.Fix.Summary, c.bounding) {
				t.Errorf("boundary: %s %q (%v), want %s and a fix with %q", f.Status, f.Message, f.Fix, c.status, c.bounding)
			}
		})
	}
	judged(t, RefusedRead(Refusal{Code: "AccessDeniedException", Status: 403}, reader), Fail, "AccessDenied")
}

func TestRefusals(t *testing.T) {
	denial := func(reason string) Finding {
		return RefusedWrite(Refusal{Code: "AccessDeniedException", Status: 403,
			Text: "User: x is not authorized to perform: aps:RemoteWrite " + reason},
			destination)
	}
	for _, c := range []struct {
		name    string
		finding Finding
		status  Status
		fix     string
	}{
		{"audience", RefusedSession(Refusal{Code: "InvalidIdentityToken", Text: "Incorrect token audience", Status: 400}, Finding{}), Fail,
			"audience"},
		{"provider", RefusedSession(Refusal{Code: "InvalidIdentityToken", Text: "No OpenIDConnect provider found in your account " +
			"for x", Status: 400}, Finding{}), Fail, "register the issuer"},
		{"keys", RefusedSession(Refusal{Code: "InvalidIdentityToken", Text: "Couldn't retrieve verification key from your identity " +
			"provider", Status: 400}, Finding{Status: Pass}), Fail, "public"},
		{"thumbprint", RefusedSession(Refusal{Code: "InvalidIdentityToken", Text: "OpenIDConnect provider's HTTPS certificate doesn't " +
			"match configured thumbprint", Status: 400}, Finding{Status: Pass}), Fail, "thumbprint"},
		{"expired", RefusedSession(Refusal{Code: "ExpiredTokenException", Text: "Token expired", Status: 400},
			Finding{Status: Pass}), Fail, "clock"},
		{"denied, trusted", RefusedSession(Refusal{Code: "AccessDenied", Text: "Not authorized", Status: 403},
			Finding{Status: Pass}), Fail, "wait"},
		{"denied, not read", RefusedSession(Refusal{Code: "AccessDenied", Text: "Not authorized", Status: 403}, Finding{}), Fail,
			"credentials that may read IAM"},
		{"the second role", RefusedSession(Refusal{Code: "AccessDenied", Text: "no", Status: 403, Second: second}, Finding{Status: Pass}), Fail,
			"the second role (assumeRole)"},
		{"silence", RefusedSession(Refusal{Text: "connection refused"}, Finding{Status: Pass}), Fail, "sts.endpoint"},
		{"write denied", RefusedWrite(Refusal{Code: "AccessDeniedException", Text: "no", Status: 403}, destination), Fail,
			"service control policy"},
		{"denied, with a condition", RefusedSession(Refusal{Code: "AccessDenied", Text: "Not authorized", Status: 403},
			Finding{Status: Warn, Proof: Session, Message: "if Bool of aws:x"}), Fail, "if Bool of aws:x"},
		{"query throttled", RefusedQuery(Refusal{Code: "ThrottlingException", Text: "Rate exceeded", Status: 429}, destination), Warn,
			"limits"},
		{"query by a user of that name", RefusedQuery(Refusal{Code: "AccessDeniedException", Status: 403,
			Text: "User: arn:aws:iam::111122223333:user/multi-region-reader is not authorized"}, destination), Skip, ""},
		{"write denied by an organization", denial("with an explicit deny in a service control policy"), Fail, "service control policy denies"},
		{"write denied by an endpoint", denial("because no VPC endpoint policy allows the action"), Fail, "policy of the VPC endpoint"},
		{"write denied by a boundary", denial("because no permissions boundary allows the action"), Fail,
			"permissions boundary does not allow"},
		{"write of a role without a policy", denial("because no identity-based policy allows the action"), Fail,
			"own policies do not allow it"},
		{"clock", RefusedWrite(Refusal{Code: "InvalidSignatureException", Text: "Signature expired: 1 is now earlier than 2", Status: 403},
			destination), Fail, "clock of this machine"},
		{"no signature", RefusedWrite(Refusal{Code: "MissingAuthenticationTokenException", Text: "Missing Authentication Token", Status: 403},
			destination), Fail, "proxies in between"},
		{"AMP fails", RefusedWrite(Refusal{Code: "InternalServerException", Text: "no", Status: 503}, destination), Fail, "AWS fails"},
		{"STS fails", RefusedSession(Refusal{Code: "ServiceUnavailable", Text: "no", Status: 503}, Finding{}), Fail, "AWS fails"},
		{"write throttled", RefusedWrite(Refusal{Code: "ThrottlingException", Text: "Rate exceeded", Status: 429},
			destination), Fail, "limits"},
		{"write elsewhere", RefusedWrite(Refusal{Code: "InvalidSignatureException", Text: "Credential should be scoped to a valid " +
			"region.", Status: 403}, destination), Fail, "another region than eu-west-1"},
		{"query denied", RefusedQuery(Refusal{Code: "AccessDeniedException", Text: "no", Status: 403}, destination), Skip, ""},
		{"query of nothing", RefusedQuery(Refusal{Code: "ResourceNotFoundException", Text: "no", Status: 404}, destination), Fail,
			"copy the workspace's ARN"},
	} {
		t.Run(c.name, func(t *testing.T) {
			judged(t, c.finding, c.status, "")
			if c.finding.Fix != nil && !strings.Contains(c.finding.Fix.Summary, c.fix) {
				t.Errorf("%q lacks %q", c.finding.Fix.Summary, c.fix)
			}
		})
	}
}

// loaded returns a configuration as Prometheus prints it.
const loaded = `global:
  scrape_interval: 15s
scrape_configs:
- job_name: nodes
  ec2_sd_configs:
  - endpoint: ""
    region: eu-west-1
    refresh_interval: 1m
- job_name: self
  static_configs:
  - targets:
    - localhost:9090
remote_write:
- url: https://aps-workspaces.eu-west-1.amazonaws.com/workspaces/ws-1/api/v1/remote_write
  sigv4:
    region: eu-west-1
    role_arn: arn:aws:iam::111122223333:role/amp
  queue_config:
    capacity: 2500
`

func TestEnvironment(t *testing.T) {
	const role = "arn:aws:iam::111122223333:role/"
	environment := func(more ...string) map[string]string {
		env := map[string]string{"AWS_ROLE_ARN": role + "ampbridge", "AWS_WEB_IDENTITY_TOKEN_FILE": "/token"}
		for _, name := range more {
			env[name] = "secret"
		}
		return env
	}
	signed := func(fields string) string { return "remote_write: [{url: 'https://x', sigv4: {" + fields + "}}]" }
	discovery := func(name, fields string) string {
		return "scrape_configs: [{job_name: a, " + name + "_sd_configs: [{" + fields + "}]}]"
	}
	const alerts = "alerting: {alertmanagers: [{sigv4: {region: eu-west-1}, static_configs: [{targets: [a]}]}]}"
	for _, c := range []struct {
		name string
		seen ContainerState
		// status and message are for environment: container, sidecar for environment: sidecar.
		status  Status
		message string
		sidecar string
	}{
		{"nothing configured", ContainerState{Configs: []string{"{}"}}, Pass, "AWS_ROLE_ARN for people and tools", "no static keys"},
		{"as Prometheus renders it", ContainerState{Configs: []string{loaded}}, Fail, "remote_write[0].sigv4, " +
			"scrape_configs[0].ec2_sd_configs[0] now use AWS_ROLE_ARN",
			"as before, by remote_write[0].sigv4, scrape_configs[0].ec2_sd_configs[0]"},
		{"own sigv4", ContainerState{Configs: []string{signed("region: eu-west-1")}}, Warn, "remote_write[0].sigv4 now uses " +
			"AWS_ROLE_ARN", "as before, by remote_write[0].sigv4"},
		{"own sigv4, empty", ContainerState{Configs: []string{signed("")}}, Warn, "may write to that role's workspace, and to no " +
			"other", "by remote_write[0].sigv4"},
		{"own sigv4 with a role of its own", ContainerState{Configs: []string{signed("role_arn: '" + role + "amp'")}}, Fail,
			"may assume no other role", "by remote_write[0].sigv4"},
		{"own sigv4 with a profile", ContainerState{Configs: []string{signed("profile: mine")}}, Pass,
			"for people and tools", "no static keys"},
		{"own sigv4 with keys", ContainerState{Configs: []string{signed("access_key: A, secret_key: <secret>")}}, Pass, "for people and tools",
			"no static keys"},
		{"ampbridge's own block", ContainerState{Configs: []string{"remote_write: [{name: ampbridge-central, url: 'https://x', sigv4: " +
			"{region: eu-west-1, profile: ampbridge-central}}]"}},
			Pass, "for people and tools", "no static keys"},
		{"self-assume", ContainerState{Configs: []string{signed("role_arn: '" + role + "ampbridge'")}}, Fail, "would have to assume itself",
			"by remote_write[0].sigv4"},
		{"Alertmanager", ContainerState{Configs: []string{alerts}}, Fail, "alerting.alertmanagers[0].sigv4 now uses AWS_ROLE_ARN, " +
			"which is ampbridge's, and no longer the node's role or the pod's own identity: alerts are refused",
			"by alerting.alertmanagers[0].sigv4"},
		{"Alertmanager, found by discovery", ContainerState{Configs: []string{"alerting: {alertmanagers: [{scheme: https}, " +
			"{ec2_sd_configs: [{region: eu-west-1}]}]}"}},
			Fail, "alerting.alertmanagers[1].ec2_sd_configs[0] now uses", "by alerting.alertmanagers[1].ec2_sd_configs[0]"},
		{"EC2", ContainerState{Configs: []string{discovery("ec2", "")}}, Fail, "scrape_configs[0].ec2_sd_configs[0] now uses",
			"by scrape_configs[0].ec2"},
		{"Lightsail", ContainerState{Configs: []string{discovery("lightsail", "region: a")}}, Fail, "lightsail_sd_configs[0] now uses",
			"lightsail"},
		{"ECS", ContainerState{Configs: []string{discovery("ecs", "region: a")}}, Fail, "ecs_sd_configs[0] now uses", "ecs"},
		{"MSK", ContainerState{Configs: []string{discovery("msk", "region: a")}}, Fail, "msk_sd_configs[0] now uses", "msk"},
		{"ElastiCache", ContainerState{Configs: []string{discovery("elasticache", "region: a")}}, Fail, "elasticache_sd_configs[0] " +
			"now uses", "elasticache"},
		{"RDS", ContainerState{Configs: []string{discovery("rds", "region: a")}}, Fail, "rds_sd_configs[0] now uses", "rds"},
		{"any of AWS", ContainerState{Configs: []string{discovery("aws", "role: ecs, region: a")}}, Fail, "aws_sd_configs[0] now uses", "aws"},
		{"discovery with a role of its own", ContainerState{Configs: []string{discovery("ec2", "role_arn: '"+role+"discovery'")}}, Fail,
			"ec2_sd_configs[0] now uses", "ec2"},
		{"discovery with a profile, or keys", ContainerState{Configs: []string{discovery("ec2", "profile: a"),
			discovery("rds", "access_key: a")}}, Pass, "for people", "no static keys"},
		{"discovery of others", ContainerState{Configs: []string{discovery("kubernetes", "role: pod"), discovery("azure", "")}}, Pass,
			"for people", "no static keys"},
		{"a file of scrape_config_files", ContainerState{Configs: []string{"{}", "groups: []", "scrape_configs:\n- job_name: b\n  " +
			"ecs_sd_configs:\n  - region: a\n"}}, Fail, "scrape_configs[0].ecs_sd_configs[0] now uses", "ecs"},
		{"the same, applied and given", ContainerState{Configs: []string{alerts, alerts}}, Fail, "alerting.alertmanagers[0].sigv4 now " +
			"uses", "by alerting.alertmanagers[0].sigv4"},
		{"many", ContainerState{Configs: []string{"scrape_configs: [{ec2_sd_configs: [{}, {}, {}, {}, {}, {}]}]"}}, Fail,
			"ec2_sd_configs[2], 3 more now use", "3 more"},
		{"a bracket that yaml/v4 reads as a map", ContainerState{Configs: []string{"scrape_configs: [{static_configs: [{targets: " +
			"[localhost:]}], ec2_sd_configs: [{}]}]"}}, Fail, "ec2_sd_configs[0] now uses", "ec2"},
		{"not readable", ContainerState{Configs: []string{"{"}}, Skip, "its configuration cannot be read", "no static keys"},
		{"not there", ContainerState{}, Skip, "its configuration cannot be read", "no static keys"},
		{"part of the environment not seen", ContainerState{Configs: []string{"{}"}, Hidden: []string{"Secret a"}}, Skip,
			"comes from Secret a", "comes from Secret a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			given := c.seen
			given.Env, given.Given = environment(), true
			judged(t, Environment(given), c.status, c.message)
			judged(t, Environment(c.seen), Pass, c.sidecar)
		})
	}
	for _, c := range []struct {
		name    string
		seen    ContainerState
		status  Status
		message string
	}{
		{"a role and static keys", ContainerState{Env: environment("AWS_ACCESS_KEY_ID")}, Fail, "static keys win"},
		{"static keys alone", ContainerState{Env: map[string]string{"AWS_ACCESS_KEY_ID": "secret"}}, Warn, "something may"},
		{"the pod's own role, with users", ContainerState{Env: environment(), Configs: []string{alerts}}, Pass, "AWS_ROLE_ARN is the " +
			"pod's own; the identity of the pod or its node is used, as before, by alerting"},
		{"the pod's own role assumes itself", ContainerState{Env: environment(),
			Configs: []string{signed("role_arn: '" + role + "ampbridge'")}}, Fail, "would have to assume itself"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := Environment(c.seen)
			judged(t, f, c.status, c.message)
			if strings.Contains(f.Message, "secret") {
				t.Errorf("it shows a value: %s", f.Message)
			}
		})
	}
}

// series returns a metric with one series, which has the label unless it is empty.
func series(label, labelValue string, value float64) []Sample {
	if label == "" {
		return []Sample{{Value: value}}
	}
	return []Sample{{Labels: map[string]string{label: labelValue}, Value: value}}
}

// remoteWrite contains Prometheus's metrics of one remote_write.
type remoteWrite struct{ newest, sent, attempts, retried, failed, pending float64 }

// addTo adds the metrics of a remote_write with the name.
func (w remoteWrite) addTo(m Metrics, name string) {
	const prefix = "prometheus_remote_storage_"
	m[prefix+"highest_timestamp_in_seconds"] = series("", "", w.newest)
	for metric, value := range map[string]float64{
		"queue_highest_sent_timestamp_seconds": w.sent, "samples_total": w.attempts, "samples_retried_total": w.retried,
		"samples_failed_total": w.failed, "samples_pending": w.pending,
	} {
		m[prefix+metric] = append(m[prefix+metric], series("remote_name", name, value)...)
	}
}

func (w remoteWrite) metrics(name string) Metrics {
	m := Metrics{}
	w.addTo(m, name)
	return m
}

func TestFlowState(t *testing.T) {
	const now, late = 1_700_000_000, 1_700_000_000 - 100_000
	for _, c := range []struct {
		name        string
		first, last remoteWrite
		apart       time.Duration
		status      Status
		message     string
		final       bool
	}{
		{"well, at the first read", remoteWrite{now, now - 1, 900, 0, 0, 20}, remoteWrite{now, now - 1, 900, 0, 0, 20}, 0, Pass,
			"central is 1 second behind, nothing refused, nothing retried", true},
		{"it failed once, at the first read", remoteWrite{now, now - 1, 900, 100, 0, 20}, remoteWrite{now, now - 1, 900, 100, 0, 20}, 0, Skip,
			"not known yet", false},
		{"it failed once, and sends", remoteWrite{now, now - 1, 900, 100, 0, 20}, remoteWrite{now + 5, now + 4, 1000, 100, 0, 0},
			5 * time.Second, Pass, "100 retried since the start", true},
		{"it failed once, and has nothing to send", remoteWrite{now, now, 900, 100, 0, 0}, remoteWrite{now, now, 900, 100, 0, 0}, FlowWindow,
			Pass, "0 seconds behind", true},

		// AMP answers 503 from the start: attempts and retries grow, nothing is sent.
		{"retried and never sent", remoteWrite{now, 0, 500, 400, 0, 100}, remoteWrite{now + 20, 0, 900, 800, 0, 100}, FlowWindow, Fail,
			"central: 100 samples are pending, 400 were retried within 20 seconds, and none was sent; none was ever sent", true},
		{"retried and never sent, too soon to tell", remoteWrite{now, 0, 500, 400, 0, 100}, remoteWrite{now + 4, 0, 600, 500, 0, 100},
			4 * time.Second, Skip, "not known yet", false},
		// AMP does not answer: one attempt hangs, nothing is retried yet.
		{"pending and never sent", remoteWrite{now, 0, 100, 0, 0, 100}, remoteWrite{now + 20, 0, 100, 0, 0, 400}, FlowWindow, Fail,
			"400 samples are pending, 0 were retried", true},
		// It worked until a minute ago: less behind than is tolerated, and stuck.
		{"stuck for a minute", remoteWrite{now, now - 40, 5000, 600, 0, 300}, remoteWrite{now + 20, now - 40, 5200, 800, 0, 500}, FlowWindow,
			Fail,
			"the newest that was sent is 60 seconds behind", true},
		{"stuck, and behind", remoteWrite{now, late, 5000, 600, 0, 300}, remoteWrite{now, late, 5000, 600, 0, 300}, FlowWindow, Fail,
			"28 hours behind", true},

		// A refused batch counts as sent: the timestamp advances, nothing arrives.
		{"all refused", remoteWrite{now, now - 1, 900, 0, 900, 0}, remoteWrite{now + 20, now + 19, 1400, 0, 1400, 0}, FlowWindow, Fail,
			"central: 500 samples were refused within 20 seconds, and none is known to be accepted", true},
		{"all refused, and some in flight", remoteWrite{now, now - 1, 900, 0, 900, 0}, remoteWrite{now + 20, now + 19, 1500, 0, 1400, 100},
			FlowWindow, Fail,
			"none is known to be accepted", true},
		{"some refused", remoteWrite{now, now - 1, 900, 0, 0, 0}, remoteWrite{now + 5, now + 4, 1400, 0, 12, 0}, 5 * time.Second, Warn,
			"12 samples were refused since the start", true},
		{"most refused", remoteWrite{now, now - 1, 900, 0, 0, 0}, remoteWrite{now + 5, now + 4, 1400, 0, 300, 0}, 5 * time.Second, Fail,
			"300 samples were refused within 5 seconds, and fewer were accepted", true},
		{"some refused long ago", remoteWrite{now, now - 1, 900, 0, 12, 0}, remoteWrite{now + 5, now + 4, 1400, 0, 12, 0},
			5 * time.Second, Warn,
			"12 samples were refused since the start", true},

		{"it catches up", remoteWrite{now, late, 500, 400, 0, 9000}, remoteWrite{now + 5, late + 500, 5000, 400, 0, 9000},
			5 * time.Second, Warn,
			"28 hours behind, and catches up", true},
		{"it falls behind", remoteWrite{now, late, 500, 400, 0, 9000}, remoteWrite{now + 5, late + 1, 600, 400, 0, 9000}, 5 * time.Second,
			Fail, "central is 28 hours behind", true},
		{"nothing scraped yet", remoteWrite{}, remoteWrite{}, FlowWindow, Skip, "nothing was sent yet, and nothing waits", true},
		{"started again between the reads", remoteWrite{now, now - 1, 900, 90, 0, 20}, remoteWrite{now + 20, 0, 40, 40, 0, 40}, FlowWindow,
			Fail, "40 were retried", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, final := FlowState(c.first.metrics("central"), c.last.metrics("central"), c.apart, []policy.Block{{Name: "central"}},
				time.Unix(now, 0))
			judged(t, f, c.status, c.message)
			if final != c.final {
				t.Errorf("final: %v", final)
			}
		})
	}
}

func TestFlowStateOfSeveral(t *testing.T) {
	const now = 1_700_000_000
	well, stuck := remoteWrite{now, now - 1, 900, 0, 0, 20}, remoteWrite{now, 0, 900, 800, 0, 100}
	refused, idle := remoteWrite{now, now - 1, 900, 0, 9, 0}, remoteWrite{now, 0, 0, 0, 0, 0}
	for _, c := range []struct {
		name    string
		a, b    remoteWrite
		apart   time.Duration
		status  Status
		message string
		final   bool
	}{
		{"both well", well, well, 0, Pass, "a is 1 second behind, nothing refused, nothing retried; b is", true},
		{"one is stuck, too soon to tell", well, stuck, 0, Skip, "b: not known yet", false},
		{"one is stuck", well, stuck, FlowWindow, Fail, "b: 100 samples are pending", true},
		{"a warning does not hide a skipped one", refused, idle, FlowWindow, Skip, "b: nothing was sent yet", true},
		{"a skipped one hides a warning", idle, refused, FlowWindow, Skip, "a: nothing was sent yet", true},
		{"a skipped one does not hide a failed one", idle, stuck, FlowWindow, Fail, "b: 100 samples", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := c.a.metrics("a")
			c.b.addTo(m, "b")
			f, final := FlowState(m, m, c.apart, []policy.Block{{Name: "a"}, {Name: "b"}}, time.Unix(now, 0))
			judged(t, f, c.status, c.message)
			if final != c.final {
				t.Errorf("final: %v", final)
			}
		})
	}
	m := well.metrics("mine")
	for apart, want := range map[time.Duration]bool{0: false, FlowWindow: true} {
		f, final := FlowState(m, m, apart, []policy.Block{{Name: "ampbridge-central"}}, time.Unix(now, 0))
		judged(t, f, Fail, "no remote_write of the name ampbridge-central")
		if final != want {
			t.Errorf("a block that is not there, after %s: final %v", apart, final)
		}
	}
}

func TestSync(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	lease := func(age time.Duration) *LeaseState { return &LeaseState{"sync-1", ago(age), 15 * time.Second, false} }
	leader := func(success time.Duration, refusals, loaded float64, up time.Duration) Metrics {
		at := float64(ago(success).Unix())
		if success == 0 {
			at = 0
		}
		return Metrics{
			"ampbridge_sync_last_success_timestamp_seconds": series("", "", at),
			"ampbridge_sync_refusals":                       series("", "", refusals),
			"ampbridge_policy_last_load_success":            series("", "", loaded),
			"process_start_time_seconds":                    series("", "", float64(ago(up).Unix())),
		}
	}
	const deployment, cronJob = "deployment/ampbridge-sync", "cronjob/ampbridge-sync"
	well := leader(3*time.Minute, 0, 1, time.Hour)
	for _, c := range []struct {
		name    string
		seen    SyncState
		status  Status
		message string
	}{
		{"well", SyncState{Workload: deployment, Lease: lease(2 * time.Second), Leader: well}, Pass, "sync-1 leads, and its last pass " +
			"succeeded 3 minutes ago"},
		{"the leader's clock is ahead", SyncState{Workload: deployment, Lease: lease(-10 * time.Second), Leader: well}, Pass, "sync-1 leads"},
		{"the leader's clock is an hour behind", SyncState{Workload: deployment,
			Lease: &LeaseState{"sync-1", ago(time.Hour), 15 * time.Second, true}, Leader: well}, Pass, "sync-1 leads"},
		{"by hand, beside the cluster", SyncState{Lease: lease(2 * time.Second), Problem: "no such pod"}, Skip, "is not known: no such pod"},
		{"not installed", SyncState{}, Warn, "nothing in the cluster runs sync"},
		{"not installed any more", SyncState{Lease: lease(time.Hour)}, Fail, "nothing in the cluster runs sync any more"},
		// Argo CD never applies a Lease.
		{"no Lease", SyncState{Workload: deployment}, Fail, "no replica of deployment/ampbridge-sync ever led: there is no Lease"},
		{"never held", SyncState{Workload: deployment, Lease: &LeaseState{"", ago(time.Hour), time.Second, false}}, Fail,
			"released the Lease 60 minutes ago"},
		{"no leader for an hour", SyncState{Workload: deployment, Lease: lease(3 * time.Hour), Leader: well}, Fail, "sync-1 renewed " +
			"the Lease last, 3 hours ago"},
		{"the future, and it does not move", SyncState{Workload: deployment, Lease: lease(-time.Hour), Leader: well}, Fail, "no replica"},
		{"metrics not to be had", SyncState{Workload: deployment, Lease: lease(0), Problem: "forbidden"}, Skip, "not known: forbidden"},
		{"another program's metrics", SyncState{Workload: deployment, Lease: lease(0), Leader: Metrics{"up": series("", "", 1)}}, Skip,
			"it has no metric"},
		{"it refuses the policy", SyncState{Workload: deployment, Lease: lease(0), Leader: leader(time.Minute, 0, 0, time.Hour)}, Fail,
			"refuses the newest version of the policy"},
		{"one refusal", SyncState{Workload: deployment, Lease: lease(0), Leader: leader(time.Minute, 1, 1, time.Hour)}, Fail,
			"refused 1 change that the policy requires"},
		{"refusals, and never a success", SyncState{Workload: deployment, Lease: lease(0), Leader: leader(0, 3, 1, time.Minute)}, Fail,
			"refused 3 changes"},
		{"just started", SyncState{Workload: deployment, Lease: lease(0), Leader: leader(0, 0, 1, time.Minute)}, Skip,
			"its first pass is not finished"},
		{"never a success", SyncState{Workload: deployment, Lease: lease(0), Leader: leader(0, 0, 1, time.Hour)}, Fail, "none of its " +
			"passes has succeeded in 60 minutes"},
		{"no success for long", SyncState{Workload: deployment, Lease: lease(0), Leader: leader(26*time.Minute, 0, 1, time.Hour)}, Fail,
			"ended 26 minutes ago: there should be one every 10 minutes"},
		{"a CronJob", SyncState{Workload: cronJob, CronJob: &CronJobState{Started: ago(4 * time.Minute),
			Succeeded: ago(3 * time.Minute)}}, Pass,
			"its last run succeeded 3 minutes ago"},
		{"a CronJob that is not run any more", SyncState{Workload: cronJob,
			CronJob: &CronJobState{Started: ago(73 * time.Hour), Succeeded: ago(72 * time.Hour)}},
			Fail, "cronjob/ampbridge-sync has not been run for 3 days"},
		{"a CronJob once a day", SyncState{Workload: cronJob, CronJob: &CronJobState{Started: ago(24 * time.Hour),
			Succeeded: ago(23 * time.Hour)}}, Pass,
			"its last run succeeded 23 hours ago"},
		{"a CronJob at work", SyncState{Workload: cronJob, CronJob: &CronJobState{Started: ago(time.Minute), Succeeded: ago(time.Hour)}}, Pass,
			"a run is in progress"},
		{"a CronJob that fails", SyncState{Workload: cronJob, CronJob: &CronJobState{Started: ago(time.Hour),
			Succeeded: ago(3 * time.Hour)}}, Fail,
			"has not succeeded; the last successful run ended 3 hours ago"},
		{"a CronJob that has always failed", SyncState{Workload: cronJob, CronJob: &CronJobState{Started: ago(time.Hour)}}, Fail,
			"no run ever succeeded"},
		{"a CronJob that is suspended", SyncState{Workload: cronJob, CronJob: &CronJobState{Suspended: true,
			Started: ago(time.Hour), Succeeded: ago(time.Hour)}}, Fail,
			"is suspended"},
		{"a CronJob that fails every five minutes", SyncState{Workload: cronJob,
			CronJob: &CronJobState{Hourly: true, Started: ago(2 * time.Minute), Succeeded: ago(72 * time.Hour)}}, Fail,
			"the last successful run ended 3 days ago"},
		{"a daily CronJob that fails", SyncState{Workload: cronJob,
			CronJob: &CronJobState{Started: ago(2 * time.Minute), Succeeded: ago(72 * time.Hour)}}, Fail,
			"the last successful run ended 3 days ago"},
		{"a daily CronJob that failed once", SyncState{Workload: cronJob,
			CronJob: &CronJobState{Started: ago(2 * time.Minute), Succeeded: ago(47 * time.Hour)}}, Pass, "a run is in progress"},
		{"an hourly CronJob that is not run any more", SyncState{Workload: cronJob,
			CronJob: &CronJobState{Hourly: true, Started: ago(40 * time.Hour), Succeeded: ago(40 * time.Hour)}}, Fail,
			"has not been run for 40 hours"},
		{"a CronJob before its first run", SyncState{Workload: cronJob, CronJob: &CronJobState{}}, Skip, "has not run yet"},
		{"a CronJob in its first run", SyncState{Workload: cronJob, CronJob: &CronJobState{Started: ago(time.Minute)}}, Skip,
			"first run is not finished"},
	} {
		t.Run(c.name, func(t *testing.T) {
			judged(t, Sync(c.seen, 10*time.Minute, now, NewFix("see its log")), c.status, c.message)
		})
	}
}

func TestHourly(t *testing.T) {
	for schedule, want := range map[string]bool{
		"*/5 * * * *": true, "0 * * * *": true, "@hourly": true, "7,37  * * * *": true,
		"0 3 * * *": false, "0 * * * 1": false, "@daily": false, "0 */2 * * *": false, "": false,
	} {
		if got := Hourly(schedule); got != want {
			t.Errorf("%q: %v", schedule, got)
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
	if got := want.MergeTrust("{", ours).String(); got != ours.String() {
		t.Errorf("of a document that cannot be read: %s", got)
	}
}

// If writeRelabelConfigs drop every sample, nothing is ever sent, and waiting does not help.
func TestFlowOfDroppedSeries(t *testing.T) {
	m := func(dropped float64) Metrics {
		const p = "prometheus_remote_storage_"
		l := map[string]string{"remote_name": "central", "url": "https://x"}
		reason := map[string]string{"remote_name": "central", "url": "https://x", "reason": "dropped_series"}
		return Metrics{p + "samples_total": {{l, 0}}, p + "samples_dropped_total": {{reason, dropped}},
			p + "highest_timestamp_in_seconds": {{nil, 1000}}}
	}
	for dropped, want := range map[float64]Status{12000: Fail, 0: Skip} {
		f, final := FlowState(m(dropped), m(dropped), FlowWindow, []policy.Block{{Name: "central"}}, time.Unix(1000, 0))
		if f.Status != want || !final || want == Fail && !strings.Contains(f.Message, "dropped all 12000 samples") {
			t.Errorf("%.0f dropped: %s: %s", dropped, f.Status, f.Message)
		}
	}
}
