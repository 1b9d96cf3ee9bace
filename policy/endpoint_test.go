package policy_test

import (
	"testing"

	"github.com/ampbridge/ampbridge/policy"
)

func TestSigningRegion(t *testing.T) {
	for want, endpoints := range map[string][]string{
		"eu-central-1":   {"https://sts.eu-central-1.amazonaws.com"},
		"us-west-2":      {"https://sts-fips.us-west-2.amazonaws.com"},
		"ap-southeast-2": {"https://sts.ap-southeast-2.api.aws"},
		"us-gov-east-1":  {"https://STS.us-gov-east-1.amazonaws.com:443/"},
		"eu-north-1": {
			"https://vpce-0123456789abcdef0-1a2b3c4d.sts.eu-north-1.vpce.amazonaws.com",
			"https://vpce-0123456789abcdef0-1a2b3c4d-eu-north-1a.sts.eu-north-1.vpce.amazonaws.com/",
		},
		"us-east-1":      {"https://sts.amazonaws.com", "https://iam.amazonaws.com", "https://iam.global.api.aws"},
		"us-gov-west-1":  {"https://iam.us-gov.amazonaws.com"},
		"cn-north-1":     {"https://sts.cn-north-1.amazonaws.com.cn", "https://iam.cn-north-1.amazonaws.com.cn"},
		"eusc-de-east-1": {"https://sts.eusc-de-east-1.amazonaws.eu"},
		"us-isob-east-1": {"https://sts.us-isob-east-1.sc2s.sgov.gov"},
		"the own region": {
			"", "https://sts.amazonaws.com.cn", "https://sts.us-east-1.corp.example",
			"https://sts.eu-central-1.amazonaws.com.example", "http://127.0.0.1:4566", "https://%zz",
		},
	} {
		for _, endpoint := range endpoints {
			if got := policy.SigningRegion(endpoint, "the own region"); got != want {
				t.Errorf("%q: %s, want %s", endpoint, got, want)
			}
		}
	}
}
