package trust_test

import (
	"strconv"
	"strings"
	"testing"
)

// STS accepts the tokens of an issuer with a private CA only if the provider has the thumbprint of the
// certificate in the policy.
func TestThumbprintsOfAPrivateAuthority(t *testing.T) {
	namespace(t, "private", "prometheus")
	f := newFixture(t)
	f.account(accountID)
	text := policyText("dev", accountID, "private")
	right := f.vouched(text)
	wrong := strings.Replace(text, "cluster: {", "cluster: {issuerCA: "+strconv.Quote(string(f.cloud.CA))+", ", 1)
	m := f.join(wrong, privateIssuer).confine()
	m.inSync()
	if err := m.assume(m.role(0), "private", "prometheus"); err == nil || !strings.Contains(err.Error(), "thumbprint") {
		t.Errorf("with the thumbprint of another authority: %v", err)
	}
	m.follow(right)
	if out := m.inSync(); !strings.Contains(out, "UpdateOpenIDConnectProviderThumbprint") ||
		!strings.Contains(out, "plan: 0 to create, 1 to change") {
		t.Errorf("corrected:\n%s", out)
	}
	if err := m.assume(m.role(0), "private", "prometheus"); err != nil {
		t.Errorf("with the right one: %v", err)
	}
	if out := m.inSync(); !strings.Contains(out, "nothing to change") {
		t.Errorf("second run:\n%s", out)
	}
}
