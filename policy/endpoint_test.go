package policy_test

import (
	"testing"

	"github.com/ampbridge/ampbridge/policy"
)

func TestSigningRegion(t *testing.T) {
	for endpoint, want := range map[string]string{
		"":                                       "eu-west-1",
		"https://sts.eu-central-1.amazonaws.com": "eu-central-1",
		"https://sts-fips.us-west-2.amazonaws.com":                                               "us-west-2",
		"https://sts.ap-southeast-2.api.aws":                                                     "ap-southeast-2",
		"https://STS.us-gov-east-1.amazonaws.com:443/":                                           "us-gov-east-1",
		"https://sts.cn-north-1.amazonaws.com.cn":                                                "cn-north-1",
		"https://vpce-0123456789abcdef0-1a2b3c4d.sts.eu-north-1.vpce.amazonaws.com":              "eu-north-1",
		"https://vpce-0123456789abcdef0-1a2b3c4d-eu-north-1a.sts.eu-north-1.vpce.amazonaws.com/": "eu-north-1",
		"https://sts.amazonaws.com":                                                              "us-east-1",
		"https://iam.amazonaws.com":                                                              "us-east-1",
		"https://iam.global.api.aws":                                                             "us-east-1",
		"https://iam.us-gov.amazonaws.com":                                                       "us-gov-west-1",
		"https://iam.cn-north-1.amazonaws.com.cn":                                                "cn-north-1",
		"https://sts.eusc-de-east-1.amazonaws.eu":                                                "eusc-de-east-1",
		"https://sts.us-isob-east-1.sc2s.sgov.gov":                                               "us-isob-east-1",
		"https://sts.amazonaws.com.cn":                                                           "eu-west-1",
		"https://sts.us-east-1.corp.example":                                                     "eu-west-1",
		"https://sts.eu-central-1.amazonaws.com.example":                                         "eu-west-1",
		"http://127.0.0.1:4566":                                                                  "eu-west-1",
		"https://%zz":                                                                            "eu-west-1",
	} {
		if got := policy.SigningRegion(endpoint, "eu-west-1"); got != want {
			t.Errorf("%q: %s, want %s", endpoint, got, want)
		}
	}
}
