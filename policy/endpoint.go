package policy

import (
	"net/url"
	"slices"
	"strings"
)

// awsSuffixes end the host names of AWS's endpoints, VPC endpoints among them.
var awsSuffixes = []string{".amazonaws.com", ".api.aws", ".amazonaws.com.cn", ".api.amazonwebservices.com.cn"}

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
	for _, suffix := range awsSuffixes {
		name, ok := strings.CutSuffix(host, suffix)
		if !ok {
			continue
		}
		labels := strings.Split(name, ".")
		for _, label := range slices.Backward(labels) {
			switch {
			case regionSyntax.MatchString(label):
				return label
			case label == "us-gov":
				return "us-gov-west-1"
			}
		}
		return "us-east-1"
	}
	return fallback
}
