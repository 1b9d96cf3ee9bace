package check

import (
	"encoding/base64"
	"encoding/json"
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
