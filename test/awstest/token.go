package awstest

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// maxToken is the longest token that STS accepts, in characters.
const maxToken = 20000

var tokenAlgorithms = []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.ES256, jose.ES384, jose.ES512}

// claims are the claims of a web identity token that STS reads.
type claims struct {
	Issuer    string       `json:"iss"`
	Subject   string       `json:"sub"`
	Audience  jwt.Audience `json:"aud"`
	Expires   *int64       `json:"exp"` // seconds since the epoch; STS accepts only integers
	IssuedAt  *int64       `json:"iat"`
	NotBefore *int64       `json:"nbf"`
}

// token is a web identity token with a signature that is not verified yet.
type token struct {
	claims
	jws *jose.JSONWebSignature
}

func invalidToken(format string, args ...any) error {
	return apiErrf(400, "InvalidIdentityToken", format, args...)
}

// parseToken reads a token and checks its form.
func parseToken(raw string) (*token, error) {
	if len(raw) < 4 || len(raw) > maxToken {
		return nil, apiErrf(
			400,
			"ValidationError",
			"1 validation error detected: Value at 'webIdentityToken' failed to satisfy constraint: Member must have length between 4 and %d",
			maxToken,
		)
	}
	jws, err := jose.ParseSignedCompact(raw, tokenAlgorithms)
	if err != nil {
		return nil, invalidToken("The ID Token provided is not a valid JWT. (You may see this error if you sent an Access Token)")
	}
	t := &token{jws: jws}
	if err := json.Unmarshal(jws.UnsafePayloadWithoutVerification(), &t.claims); err != nil {
		return nil, invalidToken("The ID Token provided is not a valid JWT. (You may see this error if you sent an Access Token)")
	}
	for _, required := range []struct {
		name   string
		absent bool
	}{
		{"iss", t.Issuer == ""}, {"aud", len(t.Audience) == 0}, {"sub", t.Subject == ""},
		{"iat", t.IssuedAt == nil}, {"exp", t.Expires == nil},
	} {
		if required.absent {
			return nil, invalidToken("Missing a required claim: %s", required.name)
		}
	}
	return t, nil
}

// errNoKey is STS's message for whatever keeps it from checking a signature; the two
// spaces are AWS's.
var errNoKey = invalidToken(
	"Couldn't retrieve verification key from your identity provider,  please reference AssumeRoleWithWebIdentity documentation for " +
		"requirements",
)

// verifySignature verifies the token with the keys that its issuer publishes.
func (c *Cloud) verifySignature(ctx context.Context, t *token, p *provider) error {
	keyID := t.jws.Signatures[0].Header.KeyID
	keys, err := c.fetcher.keys(ctx, p, c.Now(), false)
	if err == nil && len(candidates(keys, keyID)) == 0 {
		// An unknown key may be newer than the cache.
		keys, err = c.fetcher.keys(ctx, p, c.Now(), true)
	}
	switch {
	case errors.Is(err, errThumbprint):
		return invalidToken("OpenIDConnect provider's HTTPS certificate doesn't match configured thumbprint")
	case err != nil:
		if c.options.Logf != nil {
			c.options.Logf("issuer %s: %v", p.issuer(), err)
		}
		return errNoKey
	}
	found := candidates(keys, keyID)
	if len(found) == 0 {
		return errNoKey
	}
	for _, key := range found {
		if _, err := t.jws.Verify(key); err == nil {
			return nil
		}
	}
	return invalidToken("Token signature invalid")
}

// candidates returns the keys that may have signed: those with that ID, or all if the token has none.
func candidates(keys jose.JSONWebKeySet, id string) []jose.JSONWebKey {
	return slices.DeleteFunc(slices.Clone(keys.Keys), func(k jose.JSONWebKey) bool { return id != "" && k.KeyID != id })
}

// verifyTime checks that the token is valid now.
func (t *token) verifyTime(now time.Time) error {
	if now.Unix() >= *t.Expires {
		return apiErrf(400, "ExpiredTokenException", "Token expired: current date/time %d must be before the expiration date/time %d",
			now.Unix(), *t.Expires)
	}
	if t.NotBefore != nil && now.Add(maxClockSkew).Unix() < *t.NotBefore {
		return invalidToken(
			"Token is not yet valid: current date/time %d must be after the not-before date/time %d",
			now.Unix(),
			*t.NotBefore,
		)
	}
	return nil
}

// registeredAudience returns one of the token's audiences that the provider lists.
func (t *token) registeredAudience(p *provider) (string, error) {
	for _, a := range t.Audience {
		if slices.Contains(p.clientIDs, a) {
			return a, nil
		}
	}
	return "", invalidToken("Incorrect token audience")
}

// conditionKeys returns the keys of the token for a trust document's conditions.
func (t *token) conditionKeys(p *provider, audience string) conditionContext {
	context := conditionContext{}
	context.set(p.url+":sub", t.Subject)
	context.set(p.url+":aud", audience)
	context.set("aws:FederatedProvider", p.arn)
	return context
}

// providerOf finds the provider of the token's issuer in the account. It compares byte for byte.
func (a *Account) providerOf(t *token, seen time.Time) (*provider, error) {
	key, secure := strings.CutPrefix(t.Issuer, "https://")
	if p := a.providers[key].seen(seen); p != nil && secure {
		return p, nil
	}
	return nil, noProviderFor(t.Issuer)
}

func noProviderFor(issuer string) error {
	return invalidToken("No OpenIDConnect provider found in your account for %s", issuer)
}
