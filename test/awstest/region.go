package awstest

import (
	"net"
	"net/http"
	"strings"
)

// globalRegions are the regions that a partition's global endpoints accept in signatures.
var globalRegions = map[string]string{"aws": "us-east-1", "aws-us-gov": "us-gov-west-1", "aws-cn": "cn-north-1"}

// partitionOf returns the partition that a region belongs to.
func partitionOf(region string) string {
	for prefix, partition := range map[string]string{
		"cn-": "aws-cn", "us-gov-": "aws-us-gov", "eusc-": "aws-eusc",
		"us-iso-": "aws-iso", "us-isob-": "aws-iso-b", "eu-isoe-": "aws-iso-e", "us-isof-": "aws-iso-f",
	} {
		if strings.HasPrefix(region, prefix) {
			return partition
		}
	}
	return "aws"
}

// checkRegion refuses a call of IAM or STS that is signed for another region than its endpoint's. The endpoint is the
// host that the client asked for. A host that AWS did not name accepts any region of the partition.
func checkRegion(r *http.Request, service, region, partition string) error {
	want := endpointRegion(r.Host, service)
	if region == want || want == "" && partitionOf(region) == partition {
		return nil
	}
	return apiErr(http.StatusForbidden, "SignatureDoesNotMatch", "Credential should be scoped to a valid region.")
}

// endpointRegion returns the region of an endpoint of the service; empty for a host that is not an endpoint.
// https://docs.aws.amazon.com/general/latest/gr/sts.html, …/iam-service.html
func endpointRegion(host, service string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	labels := strings.Split(strings.ToLower(host), ".")
	// vpce-<id>.sts.<region>.vpce.amazonaws.com
	if strings.HasPrefix(labels[0], "vpce-") {
		labels = labels[1:]
	}
	if labels[0] != service && labels[0] != service+"-fips" {
		return ""
	}
	partition := "aws"
	place, ok := strings.CutSuffix(strings.Join(labels[1:], "."), "amazonaws.com")
	for _, other := range []string{"api.aws", "amazonaws.com.cn", "api.amazonwebservices.com.cn"} {
		if ok {
			break
		}
		place, ok = strings.CutSuffix(strings.Join(labels[1:], "."), other)
		if strings.HasSuffix(other, ".cn") {
			partition = "aws-cn"
		}
	}
	if !ok {
		return ""
	}
	place = strings.TrimSuffix(strings.TrimSuffix(place, "."), ".vpce")
	switch place {
	case "", "global":
		return globalRegions[partition]
	case "us-gov":
		return globalRegions["aws-us-gov"]
	}
	if service == "iam" {
		return globalRegions[partitionOf(place)]
	}
	return place
}
