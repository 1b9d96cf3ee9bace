package awstest

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// TestHeadersThatMustBeSigned is a signature that is right for the headers it names, but names too few. No
// SDK makes one.
func TestHeadersThatMustBeSigned(t *testing.T) {
	cloud := Start(t, Options{})
	keys := cloud.Account("111122223333").AdminCredentials()
	for _, test := range []struct {
		headers []string
		want    bool
	}{
		{[]string{"host", "x-amz-date"}, true},
		{[]string{"host"}, false},
		{[]string{"x-amz-date"}, false},
	} {
		now := time.Now().UTC()
		r := httptest.NewRequest(http.MethodGet, "/workspaces", nil)
		r.Header.Set("X-Amz-Date", now.Format(signingTime))
		s := signature{date: now.Format("20060102"), region: "eu-west-1", service: "aps", headers: test.headers}
		list := test.headers[0]
		for _, header := range test.headers[1:] {
			list += ";" + header
		}
		r.Header.Set(
			"Authorization",
			signingAlgorithm+" Credential="+keys.AccessKeyID+"/"+s.date+"/eu-west-1/aps/aws4_request, SignedHeaders="+
				list+", Signature="+s.sign(r, nil, keys.SecretAccessKey),
		)
		caller, _, _, message := cloud.authenticate(r, nil, "aps")
		if (caller != nil) != test.want {
			t.Errorf("signed %s: accepted %v (%s), want %v", list, caller != nil, message, test.want)
		}
	}
}
