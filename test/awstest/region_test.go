package awstest_test

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestSigningRegions: an endpoint takes signatures for its own region alone.
func TestSigningRegions(t *testing.T) {
	f := newFixture(t)
	forms := map[string]string{
		"sts": "Action=GetCallerIdentity&Version=2011-06-15",
		"iam": "Action=GetAccountSummary&Version=2010-05-08",
	}
	send := func(service, host, region string) (int, string) {
		form := []byte(forms[service])
		r := f.unsigned("POST", "/", form)
		r.Header = http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
		r.Host = host
		f.sign(r, form, f.account.AdminCredentials(), service, region, time.Now())
		status, _, text := f.send(r)
		return status, text
	}
	for host, right := range map[string]string{
		"sts.amazonaws.com":                                                 "us-east-1",
		"sts.eu-west-1.amazonaws.com":                                       "eu-west-1",
		"sts.eu-west-1.amazonaws.com:443":                                   "eu-west-1",
		"sts-fips.us-west-2.amazonaws.com":                                  "us-west-2",
		"sts.eu-central-1.api.aws":                                          "eu-central-1",
		"sts.cn-north-1.amazonaws.com.cn":                                   "cn-north-1",
		"vpce-0123456789abcdef0-1a2b3c4d.sts.eu-north-1.vpce.amazonaws.com": "eu-north-1",
		"iam.amazonaws.com":                                                 "us-east-1",
		"iam-fips.amazonaws.com":                                            "us-east-1",
		"iam.global.api.aws":                                                "us-east-1",
		"iam.us-gov.amazonaws.com":                                          "us-gov-west-1",
		"iam.cn-north-1.amazonaws.com.cn":                                   "cn-north-1",
		"iam.cn-north-1.api.amazonwebservices.com.cn":                       "cn-north-1",
	} {
		service, _, _ := strings.Cut(strings.TrimPrefix(host, "vpce-0123456789abcdef0-1a2b3c4d."), ".")
		service = strings.TrimSuffix(service, "-fips")
		for _, region := range []string{
			"us-east-1", "eu-west-1", "us-west-2", "eu-central-1", "eu-north-1", "cn-north-1", "cn-northwest-1", "us-gov-west-1",
		} {
			status, text := send(service, host, region)
			if region == right && status != 200 {
				t.Errorf("%s refuses its own region: %d %s", host, status, text)
			}
			if region != right && (status != 403 || !strings.Contains(text, "Credential should be scoped to a valid region.")) {
				t.Errorf("%s, signed for %s: %d %s", host, region, status, text)
			}
		}
	}
	for region, want := range map[string]int{"eu-west-1": 200, "us-east-1": 200, "cn-north-1": 403, "us-gov-west-1": 403} {
		for service := range forms {
			if status, text := send(service, "127.0.0.1", region); status != want {
				t.Errorf("%s on the loopback, signed for %s: %d %s", service, region, status, text)
			}
		}
	}
}
