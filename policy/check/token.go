package check

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ampbridge/ampbridge/policy"
)

// Claims are the claims of a token with an unverified signature.
type Claims struct {
	Issuer   policy.Issuer
	Subject  string
	Audience []string
	// Issued is when the issuer made the token; zero: the token does not have it.
	Issued, Expires time.Time
	// KeyID and Algorithm are from the header of its signature.
	KeyID, Algorithm string
}

// errNotToken does not contain the text, which may be a secret.
var errNotToken = errors.New("this is not a token: three parts in base64url, separated by dots, are expected")

// ReadClaims reads a service-account token (a JWT, RFC 7519) without verifying
// it. The error contains no part of the token.
func ReadClaims(token string) (Claims, error) {
	parts := strings.Split(strings.TrimSpace(token), ".")
	if len(parts) != 3 {
		return Claims{}, errNotToken
	}
	var header struct{ Kid, Alg string }
	var body struct {
		Iss policy.Issuer
		Sub string
		Aud audiences
		Exp int64
		Iat int64
	}
	for i, into := range []any{&header, &body} {
		text, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil || json.Unmarshal(text, into) != nil {
			return Claims{}, errNotToken
		}
	}
	claims := Claims{
		Issuer: body.Iss, Subject: body.Sub, Audience: body.Aud, Expires: time.Unix(body.Exp, 0), KeyID: header.Kid, Algorithm: header.Alg,
	}
	if body.Iat != 0 {
		claims.Issued = time.Unix(body.Iat, 0)
	}
	return claims, nil
}

// audiences may be one string or several.
type audiences []string

// UnmarshalJSON implements [json.Unmarshaler].
func (a *audiences) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		*a = audiences{one}
		return nil
	}
	return json.Unmarshal(data, (*[]string)(a))
}

// WantedToken describes the right token. Empty members are not compared.
type WantedToken struct {
	Issuer   policy.Issuer
	Subject  string
	Audience string
	// Source is the origin of the token, for the message.
	Source string
	// New is true if the token was issued just now, so that it shows the issuer's time.
	New bool
}

// clockTolerance is how far a clock may be off. AWS refuses the signature of a request with a
// larger difference.
const clockTolerance = 5 * time.Minute

// clockAhead returns how far this machine's clock is ahead of the API server's, or, if negative,
// behind. It returns 0 if the difference is tolerable, or if the token does not show it.
func clockAhead(c Claims, isNew bool, now time.Time) time.Duration {
	ahead := now.Sub(c.Issued)
	// Every token was issued in the past. Only a new one shows how long ago that was.
	if c.Issued.IsZero() || ahead.Abs() <= clockTolerance || ahead > 0 && !isNew {
		return 0
	}
	return ahead
}

// Token judges a token's claims. now is the time of this machine's clock. If the token shows that
// this clock is wrong, Token uses the API server's time.
func Token(c Claims, want WantedToken, now time.Time) Finding {
	ahead := clockAhead(c, want.New, now)
	now = now.Add(-ahead)
	fails := func(fix Fix, format string, args ...any) Finding {
		return Failed(TokenMinted, About{}, fix, want.Source+": "+format, args...)
	}
	switch {
	case want.Issuer != "" && c.Issuer != want.Issuer:
		return fails(
			NewFix(fmt.Sprintf("in the policy, write cluster.issuer: %q, or leave it out", string(c.Issuer))),
			"its issuer is %s, not %s",
			c.Issuer,
			want.Issuer,
		).Comparing("issuer", string(want.Issuer), string(c.Issuer))
	case want.Subject != "" && c.Subject != want.Subject:
		return fails(
			NewFix("give the pod the service account of the grant (spec.serviceAccountName)"),
			"its subject is %s, not %s",
			c.Subject,
			want.Subject,
		).Comparing("subject", want.Subject, c.Subject)
	case want.Audience != "" && !slices.Contains(c.Audience, want.Audience):
		if slices.Contains(c.Audience, policy.AudienceAzure) {
			return fails(
				NewFix(
					"send STS the token that ampbridge projects, not Azure's; or set token.source: azure in the policy, which registers this audience",
				),
				"its audience is %s: this is the token of Azure's webhook, and AWS requires %s",
				policy.AudienceAzure,
				want.Audience,
			).Comparing("audience", want.Audience, c.Audience...)
		}
		return fails(
			NewFix(fmt.Sprintf("project a token for the audience %s, or set token.audience in the policy", want.Audience)),
			"its audience is %s, not %s",
			strings.Join(c.Audience, ", "),
			want.Audience,
		).Comparing("audience", want.Audience, c.Audience...)
	case !now.Before(c.Expires):
		return fails(
			NewFix("replace the pod, and check its node and the node's clock: the kubelet renews tokens, and did not renew this one"),
			"it expired at %s",
			c.Expires.UTC().Format(time.RFC3339),
		)
	case c.Algorithm != "" && !slices.Contains([]string{"RS256", "RS384", "RS512", "ES256", "ES384", "ES512"}, c.Algorithm):
		return fails(
			NewFix("sign service-account tokens with RSA or ECDSA keys"),
			"it is signed with %s, which AWS does not accept",
			c.Algorithm,
		)
	}
	if ahead != 0 {
		direction := "ahead of"
		if ahead < 0 {
			direction = "behind"
		}
		return Warned(TokenMinted, About{}, NewFix("set the clock of this machine, or that of the control plane if it is the wrong one: "+
			"AWS refuses requests that are signed more than "+Span(clockTolerance)+" early or late"),
			"%s: this machine's clock is %s %s the API server's", want.Source, Span(ahead.Abs()), direction)
	}
	return Passed(
		TokenMinted,
		About{},
		"%s: %s, audience %s, for %s more",
		want.Source,
		c.Subject,
		strings.Join(c.Audience, ", "),
		Span(c.Expires.Sub(now)),
	)
}
