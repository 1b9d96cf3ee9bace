package policy

import (
	"net/url"
	"slices"
	"strings"
)

// dualStackSuffixes are the ends of host names of dual-stack endpoints.
var dualStackSuffixes = []string{"api.aws", "api.amazonwebservices.com.cn", "api.amazonwebservices.eu"}

// SigningRegion returns the region for which calls to an endpoint of STS or IAM must be signed.
// AWS accepts only the region of the endpoint. A regional endpoint has its region in the host
// name, and a global one belongs to us-east-1. For an empty endpoint, and for a host that AWS did
// not name, such as a proxy, the region is fallback.
func SigningRegion(endpoint, fallback string) string {
	u, err := url.Parse(endpoint)
	if err != nil {
		return fallback
	}
	host := strings.ToLower(u.Hostname())
	if _, found := cutAWS(host); !found {
		return fallback
	}
	labels := strings.Split(host, ".")
	slices.Reverse(labels) // the id of a VPC endpoint can be in front of the service
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
	return fallback // endpoints without a region exist only in the commercial partition
}

// cutAWS returns the host's name without the suffix of AWS, and whether it had one.
func cutAWS(host string) (rest string, found bool) {
	suffixes := append([]string{dnsSuffix("aws")}, dualStackSuffixes...)
	for _, p := range partitions {
		suffixes = append(suffixes, p.dnsSuffix)
	}
	for _, suffix := range suffixes {
		if rest, found = strings.CutSuffix(host, "."+suffix); found {
			return rest, true
		}
	}
	return host, false
}
