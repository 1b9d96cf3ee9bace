package doctor

import (
	"os"
	"testing"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/ststest"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// Doctor gets a session, and a second one with assumeRole, from each kind of STS endpoint. The
// test's STS refuses a signature for another region than the endpoint's.
func TestExchangeAtEndpoints(t *testing.T) {
	w := ststest.New(t)
	first := w.Role(t, "111122223333", "first", 3600)
	second := w.ChainedRole(t, "444455556666", "second", first)
	firstARN, err := policy.ParseARN(first)
	testkit.Must(t, err)
	secondARN, err := policy.ParseARN(second)
	testkit.Must(t, err)
	token, err := os.ReadFile(w.Token)
	testkit.Must(t, err)
	proxy := w.StartProxy(t)
	for _, endpoint := range []string{
		"",
		"https://sts.us-east-2.amazonaws.com",
		"https://sts-fips.us-west-2.amazonaws.com",
		"https://sts.eu-central-1.api.aws",
		"https://sts.amazonaws.com",
	} {
		for _, assumeRole := range []policy.ARN{{}, secondARN} {
			e := exchange{region: ststest.Region, role: firstARN, assumeRole: assumeRole,
				sts: policy.STS{Endpoint: endpoint, ProxyURL: proxy, CABundle: string(w.CA)}}
			if _, refused := e.session(t.Context(), string(token)); refused != nil {
				t.Errorf("endpoint %q, assumeRole %q: %v", endpoint, assumeRole, refused)
			}
		}
	}
}
