package check

import (
	"slices"
	"strings"

	"github.com/ampbridge/ampbridge/policy"
)

// ProviderState is an account's OIDC provider for the issuer.
type ProviderState struct {
	// Exists is false if there is none. Then only Others is set.
	Exists bool
	// URL is the issuer as IAM returns it, without https://.
	URL         string
	Audiences   []string
	Thumbprints []string
	// Others are the ARNs of the account's providers, if this one does not exist.
	Others []policy.ARN
}

// ProviderQuota is how many OIDC providers an account may have, unless its quota
// was raised (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html).
const ProviderQuota = 100

// Provider judges the OIDC provider with the ARN. published has the issuer's certificate. sync
// is the fix that creates a missing provider.
func Provider(arn policy.ARN, audience string, p ProviderState, published Published, sync Fix) Finding {
	about := About{Account: arn.Account}
	if !p.Exists {
		return missingProvider(arn, p, sync)
	}
	if host := strings.TrimPrefix(arn.Resource, "oidc-provider/"); p.URL != host {
		return Failed(OIDCProvider, about, sync, "%s is for %s, not for %s", arn, p.URL, host).Comparing("issuer", host, p.URL)
	}
	if !slices.Contains(p.Audiences, audience) {
		return Failed(
			OIDCProvider,
			about,
			NewFix("register the audience", Command{"aws", "iam", "add-client-id-to-open-id-connect-provider",
				"--open-id-connect-provider-arn", arn.String(), "--client-id", audience}),
			"its audiences are %s, not %s: AWS would answer Incorrect token audience",
			list(p.Audiences, "none"),
			audience,
		).Comparing("audience", audience, p.Audiences...)
	}
	if published.Thumbprint != "" && !published.Public && !containsFold(p.Thumbprints, published.Thumbprint) {
		return Failed(
			OIDCProvider,
			about,
			NewFix("set the thumbprint of the issuer's current CA", SetThumbprint(arn, published.Thumbprint)),
			"the issuer's certificate is of a private CA with the thumbprint %s, and the provider lists %s",
			published.Thumbprint,
			list(p.Thumbprints, "none"),
		).Comparing("thumbprint", published.Thumbprint, p.Thumbprints...)
	}
	return Passed(OIDCProvider, about, "%s, audience %s", arn, audience)
}

// SetThumbprint returns the command that sets the thumbprint of a provider.
func SetThumbprint(provider policy.ARN, thumbprint string) Command {
	return Command{"aws", "iam", "update-open-id-connect-provider-thumbprint",
		"--open-id-connect-provider-arn", provider.String(), "--thumbprint-list", thumbprint}
}

func missingProvider(arn policy.ARN, p ProviderState, sync Fix) Finding {
	about := About{Account: arn.Account}
	wanted := strings.TrimSuffix(arn.Resource, "/")
	for _, other := range p.Others {
		if strings.TrimSuffix(other.Resource, "/") == wanted {
			return Failed(OIDCProvider, about, sync, "there is %s, but not %s: the slash at the end counts", other, arn).
				Comparing("provider", arn.String(), other.String())
		}
	}
	if n := len(p.Others); n >= ProviderQuota {
		return Failed(
			OIDCProvider,
			about,
			NewFix(
				"request a higher quota of OIDC providers (up to 700) and pass it to sync (--provider-quota), or delete the providers of "+
					"deleted clusters; then sync creates it",
				Command{
					"aws",
					"service-quotas",
					"request-service-quota-increase",
					"--service-code",
					"iam",
					"--quota-code",
					providerQuotaCode,
					"--desired-value",
					"200",
					"--region",
					"us-east-1",
				},
			),
			"there is no %s, and the account has %d OIDC providers: the quota is probably used up",
			arn,
			n,
		)
	}
	return Failed(OIDCProvider, about, sync, "there is no %s", arn)
}

// Headroom judges whether a quota of IAM is large enough for the objects that sync creates.
// code names the quota in the Service Quotas API.
func Headroom(what, code string, left, needed int) Finding {
	if left >= needed {
		return Passed("", About{}, "sync creates %d, and the quota of %s leaves %d", needed, what, left)
	}
	return Failed("", About{}, NewFix("request a higher quota of "+what+", or delete those that nothing uses",
		Command{"aws", "service-quotas", "request-service-quota-increase", "--service-code", "iam", "--quota-code", code,
			"--desired-value", "VALUE", "--region", "us-east-1"}),
		"sync creates %d, and the quota of %s leaves %d", needed, what, max(0, left))
}

// providerQuotaCode names the quota in the Service Quotas API. The quotas of IAM are in
// us-east-1.
const providerQuotaCode = "L-858F3967"

// list returns the items, or none if there are no items.
func list(items []string, none string) string {
	if len(items) == 0 {
		return none
	}
	return strings.Join(items, ", ")
}

func containsFold(items []string, item string) bool {
	return slices.ContainsFunc(items, func(i string) bool { return strings.EqualFold(i, item) })
}
