package check

import (
	"slices"
	"strings"

	"github.com/ampbridge/ampbridge/policy"
)

// ProviderSeen is an account's OIDC provider for the issuer.
type ProviderSeen struct {
	// Exists is false where there is none; only Others and Total tell then.
	Exists bool
	// URL is as IAM gives it back, without https://.
	URL         string
	Audiences   []string
	Thumbprints []string
	// Others are ARNs of the account's providers, where this one is missing.
	Others []policy.ARN
}

// providerQuota is how many OIDC providers an account may have, unless its quota
// was raised (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html).
const providerQuota = 100

// Provider judges the OIDC provider that should have the ARN. published is what
// is known of the issuer's certificate; sync says what makes a missing one.
func Provider(arn policy.ARN, audience string, p ProviderSeen, published Published, sync Fix) Finding {
	about := About{Account: arn.Account}
	if !p.Exists {
		return missingProvider(arn, p, sync)
	}
	if host := strings.TrimPrefix(arn.Resource, "oidc-provider/"); p.URL != host {
		return Failed(OIDCProvider, about, sync, "%s stands for %s, not for %s", arn, p.URL, host)
	}
	if !slices.Contains(p.Audiences, audience) {
		return Failed(OIDCProvider, about, NewFix("register the audience", Command{"aws", "iam", "add-client-id-to-open-id-connect-provider",
			"--open-id-connect-provider-arn", arn.String(), "--client-id", audience}),
			"it takes the audience %s, and not %s: AWS would answer Incorrect token audience", list(p.Audiences, "of nobody"), audience)
	}
	if published.Thumbprint != "" && !published.Public && !holdsFold(p.Thumbprints, published.Thumbprint) {
		return Failed(OIDCProvider, about, NewFix("give it the thumbprint of the CA that the issuer has now", Command{"aws", "iam", "update-open-id-connect-provider-thumbprint",
			"--open-id-connect-provider-arn", arn.String(), "--thumbprint-list", published.Thumbprint}),
			"the issuer's certificate is of a private CA with the thumbprint %s, and the provider lists %s", published.Thumbprint, list(p.Thumbprints, "none"))
	}
	return Passed(OIDCProvider, about, "%s, audience %s", arn, audience)
}

func missingProvider(arn policy.ARN, p ProviderSeen, sync Fix) Finding {
	about := About{Account: arn.Account}
	wanted := strings.TrimSuffix(arn.Resource, "/")
	for _, other := range p.Others {
		if strings.TrimSuffix(other.Resource, "/") == wanted {
			return Failed(OIDCProvider, about, sync, "there is %s, but not %s: the slash at the end counts", other, arn)
		}
	}
	if n := len(p.Others); n >= providerQuota {
		return Failed(OIDCProvider, about, NewFix("have the quota of OIDC providers raised (up to 700) and tell sync (--provider-quota), or delete providers of clusters that are gone; sync makes it then",
			Command{"aws", "service-quotas", "request-service-quota-increase", "--service-code", "iam", "--quota-code", providerQuotaCode, "--desired-value", "200", "--region", "us-east-1"}),
			"there is no %s, and the account has %d OIDC providers: its quota is probably used up", arn, n)
	}
	return Failed(OIDCProvider, about, sync, "there is no %s", arn)
}

// providerQuotaCode names the quota in the Service Quotas API, where IAM's are
// those of us-east-1.
const providerQuotaCode = "L-858F3967"

// list is the items, or what to say where there are none.
func list(items []string, none string) string {
	if len(items) == 0 {
		return none
	}
	return strings.Join(items, ", ")
}

func holdsFold(items []string, item string) bool {
	return slices.ContainsFunc(items, func(i string) bool { return strings.EqualFold(i, item) })
}
