package doctor

import (
	"encoding/base64"
	"encoding/json"
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

// judged is what a test expects of a finding.
func judged(t *testing.T, f Finding, state State, says string) {
	t.Helper()
	if f.State != state || !strings.Contains(f.Says, says) {
		t.Errorf("%s: %s\nwant %s: …%s…", f.State, f.Says, state, says)
	}
	if (f.State == Broken || f.State == Doubtful) != (f.Mend != nil) {
		t.Errorf("%s, mend %v", f.State, f.Mend)
	}
	if f.Mend != nil && f.Mend.Do == "" {
		t.Errorf("%s: the mend has no words", f.Says)
	}
}

func TestIssuer(t *testing.T) {
	for _, c := range []struct {
		name         string
		named, found policy.Issuer
		state        State
		says         string
	}{
		{"left to the cluster", "", aks, OK, string(aks)},
		{"the same", aks, aks, OK, string(aks)},
		{"no slash", "https://westeurope.oic.prod-aks.azure.com/tenant/uuid", aks, Broken, "the slash at the end"},
		{"case", "https://westeurope.oic.prod-aks.azure.com/Tenant/uuid/", aks, Broken, "upper and lower case"},
		{"another", "https://example.com", aks, Broken, "the policy's is https://example.com"},
		{"none that AWS takes", "", "https://kubernetes.default.svc:6443", Broken, "port"},
	} {
		t.Run(c.name, func(t *testing.T) { judged(t, Issuer(c.named, c.found), c.state, c.says) })
	}
}

func TestKeys(t *testing.T) {
	good := Published{Issuer: aks, JWKSURI: "https://example.com/keys", Keys: []string{"one"}, Signed: true, Public: true, Thumbprint: "aa"}
	token := Claims{KeyID: "one"}
	for _, c := range []struct {
		name   string
		change func(*Published)
		token  Claims
		state  State
		says   string
	}{
		{"good", func(*Published) {}, token, OK, "a public CA"},
		{"private CA", func(p *Published) { p.Public = false }, token, OK, "a private CA, thumbprint aa"},
		{"unreachable", func(p *Published) { p.Problem = "no such host" }, token, Broken, "no such host"},
		{"of another issuer", func(p *Published) { p.Issuer = "https://example.com" }, token, Broken, "is that of https://example.com"},
		{"http", func(p *Published) { p.JWKSURI = "http://example.com/keys" }, token, Broken, "takes https alone"},
		{"rotated", func(p *Published) { p.Signed = false }, token, Broken, "hold none that signed"},
		{"no token to verify", func(p *Published) { p.Signed = false }, Claims{}, OK, "1 published"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := good
			c.change(&p)
			judged(t, Keys(aks, p, c.token), c.state, c.says)
		})
	}
}

// jwt is a token whose signature is none.
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
	for _, c := range []struct {
		name  string
		alg   string
		body  map[string]any
		state State
		says  string
	}{
		{"good", "RS256", map[string]any{}, OK, "for 10 minutes more"},
		{"one audience of several", "ES256", map[string]any{"aud": []string{"other", audience}}, OK, "other, sts.amazonaws.com"},
		{"audience as text", "RS256", map[string]any{"aud": audience}, OK, audience},
		{"wrong issuer", "RS256", map[string]any{"iss": "https://example.com"}, Broken, "its issuer is https://example.com"},
		{"wrong subject", "RS256", map[string]any{"sub": "system:serviceaccount:a:b"}, Broken, "its subject is"},
		{"wrong audience", "RS256", map[string]any{"aud": "vault"}, Broken, "its audience is vault"},
		{"Azure's", "RS256", map[string]any{"aud": policy.AudienceAzure}, Broken, "Azure's webhook"},
		{"expired", "RS256", map[string]any{"exp": now.Unix()}, Broken, "it expired at 1970-01-12"},
		{"signed with something else", "EdDSA", map[string]any{}, Broken, "EdDSA"},
	} {
		t.Run(c.name, func(t *testing.T) {
			body := map[string]any{"iss": aks, "sub": prometheus.String(), "aud": []string{audience}, "exp": now.Add(10 * time.Minute).Unix()}
			for k, v := range c.body {
				body[k] = v
			}
			claims, err := ReadClaims(jwt(t, map[string]any{"alg": c.alg, "kid": "one"}, body) + "\n")
			if err != nil {
				t.Fatal(err)
			}
			judged(t, Token(claims, want, now), c.state, c.says)
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
	good := ProviderSeen{Exists: true, URL: aks.Host(), Audiences: []string{"x", audience}, Thumbprints: []string{"AA"}}
	var many []policy.ARN
	for range providerQuota {
		many = append(many, policy.Issuer("https://example.com/x").ProviderARN("aws", "111122223333"))
	}
	for _, c := range []struct {
		name      string
		seen      ProviderSeen
		published Published
		state     State
		says      string
	}{
		{"good", good, Published{Public: true, Thumbprint: "bb"}, OK, audience},
		{"its CA", good, Published{Thumbprint: "aa"}, OK, audience},
		{"another CA", good, Published{Thumbprint: "bb"}, Broken, "the provider lists AA"},
		{"issuer not read", good, Published{}, OK, audience},
		{"no audience", ProviderSeen{Exists: true, URL: aks.Host()}, Published{}, Broken, "of nobody"},
		{"another URL", ProviderSeen{Exists: true, URL: "example.com"}, Published{}, Broken, "stands for example.com"},
		{"none", ProviderSeen{}, Published{}, Broken, "there is no " + provider.String()},
		{"no slash", ProviderSeen{Others: []policy.ARN{policy.Issuer(strings.TrimSuffix(string(aks), "/")).ProviderARN("aws", "111122223333")}}, Published{}, Broken, "the slash at the end counts"},
		{"quota", ProviderSeen{Others: many}, Published{}, Broken, "100 OIDC providers"},
	} {
		t.Run(c.name, func(t *testing.T) {
			judged(t, Provider(provider, audience, c.seen, c.published, Do("sync")), c.state, c.says)
		})
	}
}

func TestTrust(t *testing.T) {
	good := policy.TrustDocument(provider, aks, audience, []policy.Subject{prometheus, {Namespace: "a", ServiceAccount: "b"}}).String()
	statement := strings.TrimSuffix(strings.TrimPrefix(good, `{"Version":"2012-10-17","Statement":[`), "]}")
	for _, c := range []struct {
		name     string
		document string
		state    State
		says     string
	}{
		{"ours", good, OK, "lets system:serviceaccount:monitoring:prometheus in"},
		{"beside another cluster's", strings.Replace(good, "[{", `[{"Effect":"Allow","Principal":{"Federated":"arn:aws:iam::111122223333:oidc-provider/example.com"},"Action":"sts:AssumeRoleWithWebIdentity","Condition":{"StringEquals":{"example.com:sub":"x"}}},{`, 1), OK, "lets"},
		{"more conditions of this issuer", strings.Replace(good, `"StringEquals":{`, `"StringEquals":{"aws:RequestedRegion":"eu-west-1",`, 1), OK, "lets"},
		{"not JSON", "{", Broken, "cannot be read"},
		{"for somebody else", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"111122223333"},"Action":"sts:AssumeRole"}]}`, Broken, "no statement of it allows"},
		{"closed", `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Principal":{"Federated":"x"},"Action":"sts:AssumeRoleWithWebIdentity"}]}`, Broken, "the role is closed"},
		{"principal", strings.Replace(good, provider.String(), "arn:aws:iam::111122223333:oidc-provider/example.com", 1), Broken, "Principal.Federated is arn:aws:iam::111122223333:oidc-provider/example.com"},
		{"no principal", strings.Replace(good, `"Principal":{"Federated":"`+provider.String()+`"},`, "", 1), Broken, "Principal.Federated is missing"},
		{"subject", strings.ReplaceAll(good, "monitoring:prometheus", "monitoring:grafana"), Broken, "and not system:serviceaccount:monitoring:prometheus"},
		{"format", strings.ReplaceAll(good, "system:serviceaccount:monitoring:prometheus", "monitoring:prometheus"), Broken, "which no token has"},
		{"slash in the key", strings.ReplaceAll(good, "uuid/:", "uuid:"), Broken, "the slash before"},
		{"key of another issuer", strings.ReplaceAll(good, "uuid/:", "other/:"), Broken, "of another issuer"},
		{"no :sub", strings.Replace(good, `/:sub"`, `/:amr"`, 1), Broken, "every pod of the cluster is let in"},
		{"no :aud", strings.Replace(good, `/:aud"`, `/:amr"`, 1), Broken, "a token of any audience"},
		{"wrong :aud", strings.Replace(good, audience, policy.AudienceAzure, 1), Broken, "it is api://AzureADTokenExchange"},
		{"IfExists", strings.Replace(good, "StringEquals", "StringEqualsIfExists", 1), Broken, "passes where the token does not say"},
		{"ForAllValues", strings.Replace(good, "StringEquals", "ForAllValues:StringEquals", 1), Broken, "passes where the token does not say"},
		{"wildcard", strings.ReplaceAll(strings.Replace(good, "StringEquals", "StringLike", 1), "monitoring:prometheus", "monitoring:*"), Broken, "lets in whatever"},
		{"StringLike without one", strings.Replace(good, "StringEquals", "StringLike", 1), OK, "lets"},
		{"a statement without a list", strings.Replace(good, "["+statement+"]", statement, 1), OK, "lets"},
	} {
		t.Run(c.name, func(t *testing.T) {
			judged(t, Trust(c.document, Wanted{provider, aks, audience, prometheus}, Do("sync")), c.state, c.says)
		})
	}
}

func TestFull(t *testing.T) {
	var many []policy.Subject
	for n := range 30 {
		many = append(many, policy.Subject{Namespace: "monitoring", ServiceAccount: "prometheus-" + string(rune('a'+n%26)) + strings.Repeat("x", n)})
	}
	want := Wanted{provider, aks, audience, prometheus}
	for n, full := range map[int]bool{1: false, 30: true} {
		if got := want.Full(policy.TrustDocument(provider, aks, audience, many[:n]).String(), 2048); got != full {
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
		state       State
		says        string
	}{
		{"ours", []string{policy.PermissionDocument(destination).String()}, destination, OK, "allows aps:RemoteWrite"},
		{"ours, chained", []string{policy.PermissionDocument(chained).String()}, chained, OK, "allows sts:AssumeRole on " + second.String()},
		{"not the chain's", []string{policy.PermissionDocument(destination).String()}, chained, Broken, "nothing in it allows sts:AssumeRole"},
		{"AWS's managed policy", []string{`{"Statement":[{"Action":["aps:RemoteWrite"],"Effect":"Allow","Resource":"*"}]}`}, destination, OK, "allows"},
		{"wildcards, cases", []string{`{"Statement":[{"Action":"APS:remote*","Effect":"Allow","Resource":"arn:aws:aps:eu-west-?:*:workspace/ws-*"}]}`}, destination, OK, "allows"},
		{"NotAction", []string{`{"Statement":[{"NotAction":"iam:*","Effect":"Allow","Resource":"*"}]}`}, destination, OK, "allows"},
		{"NotResource", []string{`{"Statement":[{"Action":"aps:*","Effect":"Allow","NotResource":"*/ws-1"}]}`}, destination, Broken, "nothing in it"},
		{"another workspace", []string{`{"Statement":[{"Action":"aps:RemoteWrite","Effect":"Allow","Resource":"arn:x"}]}`}, destination, Broken, "on arn:x, and not on"},
		{"denied elsewhere", []string{policy.PermissionDocument(destination).String(), `{"Statement":[{"Action":"*","Effect":"Deny","Resource":"*"}]}`}, destination, Broken, "a policy of the role denies"},
		{"a condition decides", []string{`{"Statement":[{"Action":"aps:RemoteWrite","Effect":"Allow","Resource":"*","Condition":{"IpAddress":{"aws:SourceIp":"192.0.2.0/24"}}}]}`}, destination, Doubtful, "conditions decide"},
		{"a condition may deny", []string{policy.PermissionDocument(destination).String(), `{"Statement":[{"Action":"*","Effect":"Deny","Resource":"*","Condition":{"Bool":{"aws:SecureTransport":"false"}}}]}`}, destination, Doubtful, "conditions decide"},
		{"none", nil, destination, Broken, "nothing in it allows"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var documents []policy.Document
			for _, text := range c.documents {
				d, err := policy.ParseDocument(text)
				if err != nil {
					t.Fatal(err)
				}
				documents = append(documents, d)
			}
			judged(t, Permission(documents, c.destination, Do("sync")), c.state, c.says)
		})
	}
}

func TestBounds(t *testing.T) {
	const arn = "arn:aws:iam::111122223333:policy/boundary"
	writes := policy.PermissionDocument(destination)
	reads := policy.Document{Statement: []policy.Statement{{Effect: "Allow", Action: policy.Values{"s3:*"}, Resource: policy.Values{"*"}}}}
	denies := policy.Document{Statement: []policy.Statement{{Effect: "Deny", Action: policy.Values{"aps:*"}, Resource: policy.Values{"*"}}}}
	for _, c := range []struct {
		name     string
		seen     BoundarySeen
		wanted   string
		state    State
		says     string
		commands int
	}{
		{"ours", BoundarySeen{ARN: arn, Document: &writes}, arn, OK, "allows aps:RemoteWrite", 0},
		{"none wanted", BoundarySeen{}, "", OK, "asks for none", 0},
		{"one that nobody asked for", BoundarySeen{ARN: arn, Document: &writes}, "", OK, "allows", 0},
		{"missing", BoundarySeen{}, arn, Broken, "the role has none", 0},
		{"another", BoundarySeen{ARN: "arn:x", Document: &writes}, arn, Broken, "the role's is arn:x", 0},
		{"too narrow", BoundarySeen{ARN: arn, Document: &reads}, arn, Broken, "does not allow", 1},
		{"denies", BoundarySeen{ARN: arn, Document: &denies}, arn, Broken, "does not allow", 0},
		{"unreadable", BoundarySeen{ARN: arn, Problem: "AccessDenied"}, arn, Skipped, "AccessDenied", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := Bounds(c.seen, c.wanted, destination, Do("sync"))
			judged(t, f, c.state, c.says)
			if f.Mend != nil && len(f.Mend.Commands) != c.commands {
				t.Errorf("commands %v, want %d", f.Mend.Commands, c.commands)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		name    string
		finding Finding
		state   State
		do      string
	}{
		{"audience", RefusedSession(Refusal{Code: "InvalidIdentityToken", Text: "Incorrect token audience", Status: 400}, false), Broken, "audience"},
		{"provider", RefusedSession(Refusal{Code: "InvalidIdentityToken", Text: "No OpenIDConnect provider found in your account for x", Status: 400}, false), Broken, "register the issuer"},
		{"keys", RefusedSession(Refusal{Code: "InvalidIdentityToken", Text: "Couldn't retrieve verification key from your identity provider", Status: 400}, true), Broken, "public"},
		{"thumbprint", RefusedSession(Refusal{Code: "InvalidIdentityToken", Text: "OpenIDConnect provider's HTTPS certificate doesn't match configured thumbprint", Status: 400}, true), Broken, "thumbprint"},
		{"expired", RefusedSession(Refusal{Code: "ExpiredTokenException", Text: "Token expired", Status: 400}, true), Broken, "clock"},
		{"denied, aligned", RefusedSession(Refusal{Code: "AccessDenied", Text: "Not authorized", Status: 403}, true), Broken, "wait"},
		{"denied, not read", RefusedSession(Refusal{Code: "AccessDenied", Text: "Not authorized", Status: 403}, false), Broken, "credentials that may read IAM"},
		{"the second role", RefusedSession(Refusal{Code: "AccessDenied", Text: "no", Status: 403, Second: second}, true), Broken, "the second role (assumeRole)"},
		{"silence", RefusedSession(Refusal{Text: "connection refused"}, true), Broken, "sts.endpoint"},
		{"write denied", RefusedWrite(Refusal{Code: "AccessDeniedException", Text: "no", Status: 403}, destination), Broken, "service control policy"},
		{"write throttled", RefusedWrite(Refusal{Code: "ThrottlingException", Text: "Rate exceeded", Status: 429}, destination), Broken, "limits"},
		{"write elsewhere", RefusedWrite(Refusal{Code: "InvalidSignatureException", Text: "Credential should be scoped to a valid region.", Status: 403}, destination), Broken, "another region than eu-west-1"},
		{"query denied", RefusedQuery(Refusal{Code: "AccessDeniedException", Text: "no", Status: 403}, destination), Skipped, ""},
		{"query of nothing", RefusedQuery(Refusal{Code: "ResourceNotFoundException", Text: "no", Status: 404}, destination), Broken, "copy the workspace's ARN"},
	} {
		t.Run(c.name, func(t *testing.T) {
			judged(t, c.finding, c.state, "")
			if c.finding.Mend != nil && !strings.Contains(c.finding.Mend.Do, c.do) {
				t.Errorf("%q lacks %q", c.finding.Mend.Do, c.do)
			}
		})
	}
}

// loaded is a configuration as Prometheus renders it.
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
	role := map[string]string{"AWS_ROLE_ARN": "arn:aws:iam::111122223333:role/amp", "AWS_WEB_IDENTITY_TOKEN_FILE": "/token"}
	with := func(more ...string) map[string]string {
		env := map[string]string{}
		for k, v := range role {
			env[k] = v
		}
		for _, name := range more {
			env[name] = "secret"
		}
		return env
	}
	own := strings.Replace(loaded, "    refresh_interval", "    role_arn: arn:aws:iam::111122223333:role/discovery\n    refresh_interval", 1)
	for _, c := range []struct {
		name   string
		env    map[string]string
		config string
		state  State
		says   string
	}{
		{"nothing", nil, "", OK, "no static keys"},
		{"a role", role, "", OK, "AWS_ROLE_ARN for people and tools"},
		{"a role and static keys", with("AWS_ACCESS_KEY_ID"), "", Broken, "static keys win"},
		{"static keys alone", map[string]string{"AWS_ACCESS_KEY_ID": "secret"}, "", Doubtful, "something may"},
		{"self-assume", role, own, Broken, "would have to assume itself"},
		{"another role", map[string]string{"AWS_ROLE_ARN": "arn:aws:iam::111122223333:role/other"}, own, OK, ""},
		{"discovery by the node's role", map[string]string{"AWS_ROLE_ARN": "arn:aws:iam::111122223333:role/other"}, loaded, Broken, "no longer the node's role"},
		{"flow style", role, "remote_write: [{sigv4: {role_arn: 'arn:aws:iam::111122223333:role/amp'}}]", Broken, "would have to assume itself"},
		{"a configuration that cannot be read", role, "{", OK, "AWS_ROLE_ARN"},
		{"discovery, no identity", nil, loaded, OK, "no static keys"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := Environment(c.env, c.config)
			judged(t, f, c.state, c.says)
			if strings.Contains(f.Says, "secret") {
				t.Errorf("it shows a value: %s", f.Says)
			}
		})
	}
}

const sidecarMetrics = `# HELP ampbridge_session_valid 1 while the destination's session can sign.
# TYPE ampbridge_session_valid gauge
ampbridge_session_valid{destination="central"} 1
ampbridge_block_served{destination="central"} 1
ampbridge_block_own_entry{destination="central"} 0
ampbridge_gap_seconds{destination="central"} 4.2
ampbridge_start_failed 0
`

func TestSidecarState(t *testing.T) {
	for _, c := range []struct {
		name, old, new string
		state          State
		says           string
	}{
		{"well", "", "", OK, "central: session valid, block served, 4 seconds"},
		{"no session", `session_valid{destination="central"} 1`, `session_valid{destination="central"} 0`, Broken, "no valid session"},
		{"block not served", `served{destination="central"} 1`, `served{destination="central"} 0`, Broken, "the block is not served"},
		{"own entry", `entry{destination="central"} 0`, `entry{destination="central"} 1`, Doubtful, "writes to the workspace already"},
		{"start failed", "failed 0", "failed 1", Broken, "a start with the block failed"},
		{"no destination", `ampbridge_session_valid{`, `other{`, Skipped, "no destination"},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := strings.Replace(sidecarMetrics, c.old, c.new, 1)
			judged(t, SidecarState(SidecarMetrics(ReadMetrics(text))), c.state, c.says)
		})
	}
	judged(t, SidecarState(SidecarSeen{Destinations: []DestinationSeen{{Name: "central", Error: "AccessDenied: no"}}}), Broken, "no session (AccessDenied: no)")
}

const flowMetrics = `prometheus_remote_storage_highest_timestamp_in_seconds 1.7e+09
prometheus_remote_storage_queue_highest_sent_timestamp_seconds{remote_name="ampbridge-central",url="https://x/?a=\"b\",c={d}"} 1.699999999e+09
prometheus_remote_storage_samples_failed_total{remote_name="ampbridge-central",url="x"} 0
`

func TestFlowState(t *testing.T) {
	for _, c := range []struct {
		name, old, new string
		state          State
		says           string
	}{
		{"well", "", "", OK, "ampbridge-central is 1 second behind"},
		{"behind", "1.699999999e+09", "1.6999e+09", Broken, "is 28 hours behind"},
		{"refused", `url="x"} 0`, `url="x"} 12`, Doubtful, "12 samples were refused"},
		{"not applied", "ampbridge-central", "mine", Broken, "no remote_write of the name ampbridge-central"},
		{"nothing sent", "1.699999999e+09", "0", OK, "nothing sent yet"},
	} {
		t.Run(c.name, func(t *testing.T) {
			judged(t, FlowState(ReadMetrics(strings.Replace(flowMetrics, c.old, c.new, 1)), []string{"ampbridge-central"}), c.state, c.says)
		})
	}
}
