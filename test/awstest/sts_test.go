package awstest_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/go-jose/go-jose/v4"

	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/testkit"
)

const (
	notAuthorized = "Not authorized to perform sts:AssumeRoleWithWebIdentity"
	noKey         = "Couldn't retrieve verification key from your identity provider,  please reference AssumeRoleWithWebIdentity " +
		"documentation for requirements"
	badThumbprint = "OpenIDConnect provider's HTTPS certificate doesn't match configured thumbprint"
)

func TestAssumeRoleWithWebIdentity(t *testing.T) {
	f := newFixture(t)
	out, err := f.assume(f.signer.Token(subject, stsTokens))
	testkit.Must(t, err)
	creds := out.Credentials
	if !strings.HasPrefix(*creds.AccessKeyId, "ASIA") || len(*creds.AccessKeyId) != 20 || len(*creds.SecretAccessKey) != 40 ||
		*creds.SessionToken == "" {
		t.Errorf(
			"credentials look like %s, %d and %d characters",
			*creds.AccessKeyId,
			len(*creds.SecretAccessKey),
			len(*creds.SessionToken),
		)
	}
	if left := time.Until(*creds.Expiration); left > time.Hour || left < 55*time.Minute {
		t.Errorf("the session lasts %s, want the default of an hour", left)
	}
	wantARN := "arn:aws:sts::111122223333:assumed-role/ampbridge.dev.central/dev-monitoring-prometheus-0"
	if *out.AssumedRoleUser.Arn != wantARN || !strings.HasPrefix(*out.AssumedRoleUser.AssumedRoleId, "AROA") {
		t.Errorf("assumed role = %s, %s", *out.AssumedRoleUser.Arn, *out.AssumedRoleUser.AssumedRoleId)
	}
	if *out.SubjectFromWebIdentityToken != subject || *out.Audience != stsTokens || *out.Provider != f.provider {
		t.Errorf("subject %s, audience %s, provider %s", *out.SubjectFromWebIdentityToken, *out.Audience, *out.Provider)
	}
	caller, err := newSTS(f.cloud, f.session()).GetCallerIdentity(t.Context(), nil)
	testkit.Must(t, err)
	if *caller.Arn != wantARN || *caller.Account != accountID {
		t.Errorf("caller = %s of %s", *caller.Arn, *caller.Account)
	}
}

func TestTokensRefused(t *testing.T) {
	f := newFixture(t)
	stranger := awstest.NewSigner("https://container.googleapis.com/v1/projects/p/locations/l/clusters/c", jose.RS256)
	register(t, f.cloud, stranger, awstest.PublicCA)
	forger := awstest.NewSigner(eksIssuer, jose.RS256)
	claims := func(change func(map[string]any)) string {
		c := f.signer.Claims(subject, stsTokens)
		change(c)
		return f.signer.Sign(c)
	}
	without := func(name string) string {
		return claims(func(c map[string]any) { delete(c, name) })
	}
	past := time.Now().Add(-time.Hour).Unix()

	tests := []struct {
		name, token, code, message string
	}{
		{"wrong audience", f.signer.Token(subject, "api://AzureADTokenExchange"), "InvalidIdentityToken", "Incorrect token audience"},
		{"wrong subject", f.signer.Token("system:serviceaccount:monitoring:other", stsTokens), "AccessDenied", notAuthorized},
		{"subject in another case", f.signer.Token(strings.ToUpper(subject), stsTokens), "AccessDenied", notAuthorized},
		{"other namespace", f.signer.Token("system:serviceaccount:other:prometheus-k8s", stsTokens), "AccessDenied", notAuthorized},
		{
			"unknown issuer",
			stranger.Token(subject, stsTokens),
			"InvalidIdentityToken",
			"No OpenIDConnect provider found in your account for " + stranger.Issuer,
		},
		{
			"issuer with a slash too many",
			claims(func(c map[string]any) { c["iss"] = eksIssuer + "/" }),
			"InvalidIdentityToken",
			"No OpenIDConnect provider found in your account for " + eksIssuer + "/",
		},
		{"foreign signature", forger.Token(subject, stsTokens), "InvalidIdentityToken", noKey},
		{"expired", claims(func(c map[string]any) { c["exp"] = past }), "ExpiredTokenException", "Token expired: current date/time "},
		{"no subject", without("sub"), "InvalidIdentityToken", "Missing a required claim: sub"},
		{"no audience", without("aud"), "InvalidIdentityToken", "Missing a required claim: aud"},
		{"no time of issue", without("iat"), "InvalidIdentityToken", "Missing a required claim: iat"},
		{
			"fractional time",
			claims(func(c map[string]any) { c["exp"] = 4e9 + 0.5 }),
			"InvalidIdentityToken",
			"The ID Token provided is not a valid JWT.",
		},
		{"no token", "garbage", "InvalidIdentityToken", "The ID Token provided is not a valid JWT."},
		{"algorithm none", "eyJhbGciOiJub25lIn0.e30.", "InvalidIdentityToken", "The ID Token provided is not a valid JWT."},
		{"too long", f.signer.Token(strings.Repeat("x", 20000), stsTokens), "ValidationError", "1 validation error detected"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := f.assume(test.token)
			wantError(t, err, test.code, test.message)
		})
	}
	for _, call := range f.cloud.Calls() {
		if call.Action == "AssumeRoleWithWebIdentity" && call.Code == "" {
			t.Errorf("a session was issued: %+v", call)
		}
	}
}

// TestForeignSignatureWithAKnownKeyID is a forger who names the real key.
func TestForeignSignatureWithAKnownKeyID(t *testing.T) {
	f := newFixture(t)
	genuine := strings.Split(f.signer.Token(subject, stsTokens), ".")
	other := strings.Split(f.signer.Token("system:serviceaccount:other:other", stsTokens), ".")
	_, err := f.assume(genuine[0] + "." + genuine[1] + "." + other[2])
	wantError(t, err, "InvalidIdentityToken", "Token signature invalid")
}

func TestTokenAlgorithms(t *testing.T) {
	for _, algorithm := range []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.ES256, jose.ES384, jose.ES512, jose.PS256} {
		t.Run(string(algorithm), func(t *testing.T) {
			f := newFixture(t)
			signer := awstest.NewSigner(eksIssuer, algorithm)
			register(t, f.cloud, signer, awstest.PublicCA)
			_, err := f.assume(signer.Token(subject, stsTokens))
			if algorithm == jose.PS256 {
				wantError(t, err, "InvalidIdentityToken", "The ID Token provided is not a valid JWT.")
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestTrustDocuments(t *testing.T) {
	f := newFixture(t)
	key := strings.TrimPrefix(eksIssuer, "https://")
	statement := func(effect, principal, action, condition string) string {
		return fmt.Sprintf(`{"Effect":%q,"Principal":{"Federated":%q},"Action":%q,"Condition":%s}`, effect, principal, action, condition)
	}
	const web = "sts:AssumeRoleWithWebIdentity"
	sub := func(operator, value string) string { return fmt.Sprintf(`{%q:{%q:%q}}`, operator, key+":sub", value) }
	tests := []struct {
		name       string
		statements []string
		want       bool
	}{
		{"exact subject", []string{statement("Allow", f.provider, web, sub("StringEquals", subject))}, true},
		{"like", []string{statement("Allow", f.provider, web, sub("StringLike", "system:serviceaccount:monitoring:*"))}, true},
		{
			"wildcard without like",
			[]string{statement("Allow", f.provider, web, sub("StringEquals", "system:serviceaccount:monitoring:*"))},
			false,
		},
		{"no condition lets everybody in", []string{statement("Allow", f.provider, web, "{}")}, true},
		{"other provider", []string{statement("Allow", f.provider+"X", web, sub("StringEquals", subject))}, false},
		{"other action", []string{statement("Allow", f.provider, "sts:AssumeRole", sub("StringEquals", subject))}, false},
		{
			"key of another issuer",
			[]string{statement("Allow", f.provider, web, `{"StringEquals":{"example.com:sub":"`+subject+`"}}`)},
			false,
		},
		{
			"key with a spurious slash",
			[]string{statement("Allow", f.provider, web, `{"StringEquals":{"`+key+`/:sub":"`+subject+`"}}`)},
			false,
		},
		{
			"two issuers' keys in one statement never match",
			[]string{statement("Allow", f.provider, web, `{"StringEquals":{"`+key+`:sub":"`+subject+`","example.com:sub":"`+subject+`"}}`)},
			false,
		},
		{
			"if exists passes an absent key",
			[]string{statement("Allow", f.provider, web, `{"StringEqualsIfExists":{"example.com:sub":"x"}}`)},
			true,
		},
		{"deny wins", []string{
			statement("Allow", f.provider, web, sub("StringEquals", subject)),
			statement("Deny", f.provider, web, sub("StringLike", "*")),
		}, false},
		{"deny for others", []string{
			statement("Allow", f.provider, web, "{}"),
			statement("Deny", f.provider, web, sub("StringNotEquals", subject)),
		}, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f.updateTrust(`{"Version":"2012-10-17","Statement":[` + strings.Join(test.statements, ",") + `]}`)
			_, err := f.assume(f.signer.Token(subject, stsTokens))
			wantOutcome(t, err, test.want, "AccessDenied", notAuthorized)
		})
	}
}

func TestSessionParameters(t *testing.T) {
	f := newFixture(t)
	token := f.signer.Token(subject, stsTokens)
	duration := func(seconds int32) func(*sts.AssumeRoleWithWebIdentityInput) {
		return func(in *sts.AssumeRoleWithWebIdentityInput) { in.DurationSeconds = new(seconds) }
	}
	role := func(arn string) func(*sts.AssumeRoleWithWebIdentityInput) {
		return func(in *sts.AssumeRoleWithWebIdentityInput) { in.RoleArn = new(arn) }
	}
	tests := []struct {
		name          string
		change        func(*sts.AssumeRoleWithWebIdentityInput)
		code, message string
	}{
		{"the shortest", duration(900), "", ""},
		{
			"too short",
			duration(899),
			"ValidationError",
			"1 validation error detected: Value '899' at 'durationSeconds' failed to satisfy constraint: Member must have value greater " +
				"than or equal to 900",
		},
		{"the role's maximum", duration(3600), "", ""},
		{
			"above the role's maximum",
			duration(3601),
			"ValidationError",
			"The requested DurationSeconds exceeds the MaxSessionDuration set for this role.",
		},
		{"above any maximum", duration(43201), "ValidationError", "1 validation error detected"},
		{
			"session name",
			func(in *sts.AssumeRoleWithWebIdentityInput) { in.RoleSessionName = new("a/b") },
			"ValidationError",
			"1 validation error detected",
		},
		{"no such role", role("arn:aws:iam::111122223333:role/nobody"), "AccessDenied", notAuthorized},
		{"the role without its path", role("arn:aws:iam::111122223333:role/" + writerRole), "AccessDenied", notAuthorized},
		{
			"a role of an account without the provider",
			role("arn:aws:iam::999900001111:role/x"),
			"InvalidIdentityToken",
			"No OpenIDConnect provider found in your account for " + eksIssuer,
		},
		{
			"no role ARN",
			role("arn:aws:iam::111122223333:user/writer-of-samples"),
			"ValidationError",
			"arn:aws:iam::111122223333:user/writer-of-samples is invalid",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := f.assume(token, test.change)
			if test.code == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantError(t, err, test.code, test.message)
		})
	}
	f.cloud.AllowShortSessions()
	if _, err := f.assume(token, duration(1)); err != nil {
		t.Errorf("a second, with short sessions allowed: %v", err)
	}
	f.cloud.SetSessionLife(time.Minute)
	out, err := f.assume(token, duration(3600))
	testkit.Must(t, err)
	if left := out.Credentials.Expiration.Sub(f.cloud.Now()); left > time.Minute {
		t.Errorf("with sessions of a minute, one of an hour ends in %s", left)
	}
}

// TestTrailingSlashOfAnIssuer is AKS: the slash belongs to the issuer, its provider and its keys.
func TestTrailingSlashOfAnIssuer(t *testing.T) {
	f := newFixture(t)
	signer := awstest.NewSigner(aksIssuer, jose.RS256)
	register(t, f.cloud, signer, awstest.PublicCA)
	provider := f.account.ProviderARN(aksIssuer)
	f.updateTrust(trust(provider, aksIssuer, subject))

	f.createProvider(strings.TrimSuffix(aksIssuer, "/"), stsTokens)
	_, err := f.assume(signer.Token(subject, stsTokens))
	wantError(t, err, "InvalidIdentityToken", "No OpenIDConnect provider found in your account for "+aksIssuer)

	f.createProvider(aksIssuer, stsTokens)
	if _, err := f.assume(signer.Token(subject, stsTokens)); err != nil {
		t.Error(err)
	}
}

func TestPrivateCANeedsItsThumbprint(t *testing.T) {
	f := newFixture(t)
	signer := awstest.NewSigner("https://issuer.corp.example/clusters/one", jose.ES256)
	issuer := register(t, f.cloud, signer, awstest.PrivateCA)
	provider := f.account.ProviderARN(signer.Issuer)
	f.updateTrust(trust(provider, signer.Issuer, subject))
	create := func(thumbprints ...string) {
		t.Helper()
		_, err := f.iam.DeleteOpenIDConnectProvider(
			t.Context(),
			&iam.DeleteOpenIDConnectProviderInput{OpenIDConnectProviderArn: new(provider)},
		)
		testkit.Must(t, err)
		_, err = f.iam.CreateOpenIDConnectProvider(t.Context(), &iam.CreateOpenIDConnectProviderInput{
			Url: new(signer.Issuer), ClientIDList: []string{stsTokens}, ThumbprintList: thumbprints,
		})
		testkit.Must(t, err)
	}
	create(strings.Repeat("0", 40))
	_, err := f.assume(signer.Token(subject, stsTokens))
	wantError(t, err, "InvalidIdentityToken", badThumbprint)

	create(strings.ToUpper(issuer.Thumbprint()))
	if _, err := f.assume(signer.Token(subject, stsTokens)); err != nil {
		t.Errorf("with the thumbprint: %v", err)
	}
	create() // IAM fetches it
	if _, err := f.assume(signer.Token(subject, stsTokens)); err != nil {
		t.Errorf("with the thumbprint that IAM fetched: %v", err)
	}
}

func TestIssuerOutOfReach(t *testing.T) {
	f := newFixture(t)
	fault := f.issuer.Fail(awstest.Refuse)
	_, err := f.assume(f.signer.Token(subject, stsTokens))
	wantError(t, err, "InvalidIdentityToken", noKey)
	fault.Stop()
	if _, err := f.assume(f.signer.Token(subject, stsTokens)); err != nil {
		t.Error(err)
	}
	fault = f.issuer.Fail(awstest.ServerError)
	if _, err := f.assume(f.signer.Token(subject, stsTokens)); err != nil {
		t.Errorf("keys fetched a moment ago do not serve: %v", err)
	}
	f.cloud.Advance(time.Minute)
	_, err = f.assume(f.signer.Token(subject, stsTokens))
	wantError(t, err, "InvalidIdentityToken", noKey)
	if fault.Hits() == 0 {
		t.Error("the issuer was not asked again")
	}
}

func TestKeyRotation(t *testing.T) {
	f := newFixture(t)
	old := f.signer.Token(subject, stsTokens)
	if _, err := f.assume(old); err != nil {
		t.Fatal(err)
	}
	f.signer.Rotate(1)
	for name, token := range map[string]string{"old key": old, "new key": f.signer.Token(subject, stsTokens)} {
		if _, err := f.assume(token); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	f.signer.Rotate(0)
	f.cloud.Advance(time.Minute)
	_, err := f.assume(old)
	wantError(t, err, "InvalidIdentityToken", noKey)
}

func TestTokensExpireOnTheDoublesClock(t *testing.T) {
	f := newFixture(t)
	token := f.signer.Token(subject, stsTokens)
	f.cloud.Advance(61 * time.Minute)
	_, err := f.assume(token)
	wantError(t, err, "ExpiredTokenException", "Token expired: current date/time ")
}

func TestChainedRoles(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	other := f.cloud.Account("444455556666")
	client := iam.NewFromConfig(f.cloud.Config(other.AdminCredentials(), region))
	second, err := client.CreateRole(ctx, &iam.CreateRoleInput{
		RoleName: new("second"), MaxSessionDuration: new(int32(7200)), AssumeRolePolicyDocument: new(
			`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"` + f.roleARN + `"},"Action":"sts:AssumeRole"}]}`),
	})
	testkit.Must(t, err)
	assume := func(arn string, seconds int32) error {
		_, err := newSTS(f.cloud, f.session()).AssumeRole(ctx, &sts.AssumeRoleInput{
			RoleArn: new(arn), RoleSessionName: new("chained"), DurationSeconds: new(seconds),
		})
		return err
	}
	refused := "User: arn:aws:sts::111122223333:assumed-role/ampbridge.dev.central/dev-monitoring-prometheus-0 is not authorized " +
		"to perform: sts:AssumeRole on resource: "
	wantError(t, assume(*second.Role.Arn, 3600), "AccessDenied", refused+*second.Role.Arn)
	wantError(t, assume(f.roleARN, 3600), "AccessDenied", refused+f.roleARN) // itself

	f.putRolePolicy(
		fmt.Sprintf(
			`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"sts:AssumeRole","Resource":["%s","%s"]}}`,
			*second.Role.Arn,
			f.roleARN,
		),
	)
	if err := assume(*second.Role.Arn, 3600); err != nil {
		t.Errorf("trusted and permitted: %v", err)
	}
	wantError(
		t,
		assume(*second.Role.Arn, 3601),
		"ValidationError",
		"The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining.",
	)
	wantError(t, assume(f.roleARN, 3600), "AccessDenied", refused+f.roleARN) // permitted, not trusted
}

func TestPropagationDelay(t *testing.T) {
	f := newFixture(t)
	f.cloud.SetPropagationDelay(time.Hour)
	f.cloud.Advance(2 * time.Hour)
	claims := f.signer.Claims(subject, stsTokens)
	claims["exp"] = time.Now().Add(24 * time.Hour).Unix()
	token := f.signer.Sign(claims)
	f.updateTrust(trust(f.provider, eksIssuer, "system:serviceaccount:other:other"))
	if _, err := f.assume(token); err != nil {
		t.Errorf("STS sees the new trust at once: %v", err)
	}
	f.cloud.Advance(2 * time.Hour)
	_, err := f.assume(token)
	wantError(t, err, "AccessDenied", notAuthorized)
}

// A session with tags needs sts:TagSession in the trust document, and hands them on.
func TestSessionTags(t *testing.T) {
	cloud := awstest.Start(t, awstest.Options{})
	account := cloud.Account("111122223333")
	admin := iam.NewFromConfig(cloud.Config(account.AdminCredentials(), "eu-west-1"))
	role := func(name, trust, permissions string) string {
		t.Helper()
		out, err := admin.CreateRole(t.Context(), &iam.CreateRoleInput{RoleName: &name, AssumeRolePolicyDocument: &trust})
		testkit.Must(t, err)
		if permissions != "" {
			if _, err := admin.PutRolePolicy(t.Context(), &iam.PutRolePolicyInput{
				RoleName: &name, PolicyName: new("p"), PolicyDocument: &permissions,
			}); err != nil {
				t.Fatal(err)
			}
		}
		return *out.Role.Arn
	}
	trust := func(principal, actions string) string {
		return `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":` + principal + `,"Action":[` + actions + `]}}`
	}
	const both, service = `"sts:AssumeRole","sts:TagSession"`, `{"Service":"pods.eks.amazonaws.com"}`
	pod := awstest.PodIdentity{ClusterARN: "arn:aws:eks:eu-west-1:111122223333:cluster/dev", Namespace: "a", ServiceAccount: "b", Pod: "b-0"}
	untagged := role("untagged", trust(service, `"sts:AssumeRole"`), "")
	if _, err := account.PodIdentitySession(untagged, pod); err == nil || !strings.Contains(err.Error(), "sts:TagSession") {
		t.Errorf("without sts:TagSession: %v", err)
	}
	first := role("first", trust(service, both),
		`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":[`+both+`],"Resource":"*"}}`)
	session, err := account.PodIdentitySession(first, pod)
	testkit.Must(t, err)
	client := sts.NewFromConfig(cloud.Config(session, "eu-west-1"))
	for actions, want := range map[string]bool{`"sts:AssumeRole"`: false, both: true} {
		second := role(fmt.Sprint("second-", want), trust(`{"AWS":"`+first+`"}`, actions), "")
		_, err := client.AssumeRole(t.Context(), &sts.AssumeRoleInput{RoleArn: &second, RoleSessionName: new("chained")})
		if (err == nil) != want || err != nil && !strings.Contains(err.Error(), "sts:TagSession") {
			t.Errorf("a chained session into a role that allows %s: %v", actions, err)
		}
	}
}
