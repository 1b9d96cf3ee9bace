package policy

import (
	"net/url"
	"slices"
	"strings"
)

// dualStackSuffixes end the host names of dual-stack endpoints.
var dualStackSuffixes = []string{"api.aws", "api.amazonwebservices.com.cn", "api.amazonwebservices.eu"}

// SigningRegion returns the region to sign calls to an endpoint of STS or IAM for:
// AWS accepts that of the endpoint alone. An endpoint of one region has the region in
// its host name, and a global one takes us-east-1. An endpoint that is empty or not
// named by AWS, such as a proxy, says nothing: its calls are signed for fallback.
func SigningRegion(endpoint, fallback string) string {
	u, err := url.Parse(endpoint)
	if err != nil {
		return fallback
	}
	host := strings.ToLower(u.Hostname())
	suffixes := append([]string{dnsSuffix("aws")}, dualStackSuffixes...)
	for _, p := range partitions {
		suffixes = append(suffixes, p.dnsSuffix)
	}
	if !slices.ContainsFunc(suffixes, func(suffix string) bool { return strings.HasSuffix(host, "."+suffix) }) {
		return fallback
	}
	labels := strings.Split(host, ".")
	slices.Reverse(labels) // the id of a VPC endpoint comes first
	for _, label := range labels {
		switch {
		case regionSyntax.MatchString(label):
			return label
		case label == "us-gov":
			return "us-gov-west-1"
		}
	}
	if strings.HasSuffix(host, ".amazonaws.com") || strings.HasSuffix(host, ".api.aws") {
		return "us-east-1"
	}
	return fallback // only the commercial partition has endpoints without a region
}
