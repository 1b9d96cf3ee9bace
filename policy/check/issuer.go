package check

import (
	"fmt"
	"strings"

	"github.com/ampbridge/ampbridge/policy"
)

// CheckIssuer compares what the policy says of the issuer (empty: nothing) with what
// the API server says of itself.
func CheckIssuer(named, found policy.Issuer) Finding {
	if err := found.Validate(); err != nil {
		return Failed(IssuerMatches, About{}, NewFix("give the API server an issuer that AWS can register (--service-account-issuer)"), "the API server's issuer: %v", err)
	}
	if named == "" || named == found {
		return Passed(IssuerMatches, About{}, "%s", found)
	}
	how := ""
	switch {
	case strings.TrimSuffix(string(named), "/") == strings.TrimSuffix(string(found), "/"):
		how = ": they differ by the slash at the end, and it counts"
	case strings.EqualFold(string(named), string(found)):
		how = ": they differ by upper and lower case, and it counts"
	}
	return Failed(IssuerMatches, About{}, NewFix(fmt.Sprintf("in the policy, write cluster.issuer: %q, or leave it out; or use the kubeconfig of the other cluster", string(found))),
		"the policy's is %s, the API server's is %s%s", named, found, how)
}

// Published is what can be read of an issuer from outside the cluster.
type Published struct {
	// Problem is why the discovery document or the keys could not be read;
	// empty: they were.
	Problem string
	// Issuer is what the discovery document says.
	Issuer policy.Issuer
	// JWKSURI is where it says that the keys are.
	JWKSURI string
	// Keys are the ids of the keys. Signed tells whether one of them verifies
	// the token's signature.
	Keys   []string
	Signed bool
	// Public: the certificate chains to a public CA, so that AWS needs no
	// thumbprint. Thumbprint is that of the last certificate of the chain.
	Public     bool
	Thumbprint string
}

// Keys judges what an issuer publishes. token is what has to be verified; its
// zero value, where none could be had, leaves that out.
func Keys(issuer policy.Issuer, p Published, token Claims) Finding {
	fails := func(mend Fix, format string, args ...any) Finding {
		return Failed(SigningKeys, About{}, mend, format, args...)
	}
	publish := NewFix("make the discovery document and the keys readable for everybody, or publish them with ampbridge issuer publish")
	switch {
	case p.Problem != "":
		return fails(publish, "%s", p.Problem)
	case p.Issuer != issuer:
		return fails(publish, "the discovery document under %s is that of %s", issuer, p.Issuer)
	case !strings.HasPrefix(p.JWKSURI, "https://"):
		return fails(NewFix("set the API server's --service-account-jwks-uri to an https URL below the issuer"), "jwks_uri is %q, and AWS takes https alone", p.JWKSURI)
	case token.KeyID != "" && !p.Signed:
		return fails(NewFix("publish the API server's present keys beside the old ones, and wait until AWS has read them (minutes)",
			Command{"kubectl", "get", "--raw", "/openid/v1/jwks"}),
			"the published keys (%s) hold none that signed the token (%s): keys were rotated, and not published", strings.Join(p.Keys, ", "), token.KeyID)
	}
	who := "its certificate is of a public CA"
	if !p.Public {
		who = "its certificate is of a private CA, thumbprint " + p.Thumbprint
	}
	return Passed(SigningKeys, About{}, "%d published, %s", len(p.Keys), who)
}
