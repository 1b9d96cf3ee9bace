package check

import (
	"fmt"
	"strings"

	"github.com/ampbridge/ampbridge/policy"
)

// Issuer compares the policy's issuer with the API server's. named is empty if the policy
// sets none.
func Issuer(named, found policy.Issuer) Finding {
	if err := found.Validate(); err != nil {
		return Failed(
			IssuerMatches,
			About{},
			NewFix("give the API server an issuer that AWS can register (--service-account-issuer)"),
			"the API server's issuer: %v",
			err,
		)
	}
	if named == "" || named == found {
		return Passed(IssuerMatches, About{}, "%s", found)
	}
	how := ""
	switch {
	case strings.TrimSuffix(string(named), "/") == strings.TrimSuffix(string(found), "/"):
		how = ": they differ only in the slash at the end, and AWS compares it too"
	case strings.EqualFold(string(named), string(found)):
		how = ": they differ only in upper and lower case, and AWS compares it too"
	}
	return Failed(
		IssuerMatches,
		About{},
		NewFix(
			fmt.Sprintf(
				"in the policy, write cluster.issuer: %q, or leave it out; or use the kubeconfig of the other cluster",
				string(found),
			),
		),
		"the policy's issuer is %s, the API server's is %s%s",
		named,
		found,
		how,
	).Comparing("issuer", string(found), string(named))
}

// Published is what an issuer publishes outside the cluster.
type Published struct {
	// Problem is why the discovery document or the keys could not be read; empty: they
	// could be read.
	Problem string
	// Unreached is true if the issuer did not answer this machine. AWS has another network.
	Unreached bool
	// Issuer is the issuer in the discovery document.
	Issuer policy.Issuer
	// JWKSURI is the address of the keys in the discovery document.
	JWKSURI string
	// Keys are the IDs of the keys.
	Keys []string
	// Signed is true if the key with the token's key ID verifies the token.
	Signed bool
	// OtherID is the ID, in quotes, of another key that verifies the token; empty: there is none.
	OtherID string
	// Public is true if this machine trusts the certificate. AWS then needs no thumbprint.
	Public bool
	// Thumbprint is the thumbprint of the last certificate of the chain.
	Thumbprint string
}

// PublishKeys is the fix for an issuer that AWS cannot read.
var PublishKeys = NewFix("make the discovery document and the keys public, or publish them with ampbridge issuer publish")

// Keys judges what an issuer publishes. token has the claims of the verified token; zero:
// there is no token.
func Keys(issuer policy.Issuer, p Published, token Claims) Finding {
	fails := func(fix Fix, format string, args ...any) Finding {
		return Failed(SigningKeys, About{}, fix, format, args...)
	}
	switch {
	case issuer.Unreachable() != "":
		return fails(PublishKeys, "%s", issuer.Unreachable())
	case p.Unreached:
		f := Skipped(SigningKeys, About{}, "this machine could not reach the issuer, and it is not proven that AWS can: %s", p.Problem)
		f.Fix = &Fix{Summary: "run doctor on a machine that reaches the internet (DNS, proxy, firewall). AWS, not this " +
			"machine, must reach the issuer: if it is not public, publish its keys with ampbridge issuer publish"}
		return f
	case p.Problem != "":
		return fails(PublishKeys, "%s", p.Problem)
	case p.Issuer != issuer:
		return fails(PublishKeys, "the discovery document under %s is that of %s", issuer, p.Issuer).
			Comparing("issuer", string(issuer), string(p.Issuer))
	case !strings.HasPrefix(p.JWKSURI, "https://"):
		return fails(
			NewFix("set the API server's --service-account-jwks-uri to an https URL below the issuer"),
			"jwks_uri is %q, and AWS accepts only https",
			p.JWKSURI,
		)
	case token.KeyID != "" && p.OtherID != "":
		return fails(
			NewFix("publish the API server's keys as they are: AWS finds a key by its kid",
				Command{"kubectl", "get", "--raw", "/openid/v1/jwks"}),
			"the key that signed the token is published with the kid %s, and the token has %q",
			p.OtherID,
			token.KeyID,
		)
	case token.KeyID != "" && !p.Signed:
		return fails(
			NewFix("publish the API server's present keys beside the old ones, and wait until AWS has read them (minutes)",
				Command{"kubectl", "get", "--raw", "/openid/v1/jwks"}),
			"none of the published keys (%s) signed the token (its key is %s): the keys were rotated, and the new key was not published",
			strings.Join(p.Keys, ", "),
			token.KeyID,
		)
	}
	certificate := "this machine trusts its certificate"
	if !p.Public {
		certificate = "its certificate is of a private CA, thumbprint " + p.Thumbprint
	}
	return Passed(SigningKeys, About{}, "%d published, %s", len(p.Keys), certificate)
}
