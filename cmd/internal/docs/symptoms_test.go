package docs

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

var inBrackets = regexp.MustCompile("\\[(`[a-z-]+`(?:, `[a-z-]+`)*)\\](?:[^(]|$)")

// The page of symptoms has each error text as people see and search it: those of the
// guides before ampbridge, and those of AWS.
func TestSymptoms(t *testing.T) {
	page := strings.Join(strings.Fields(read(t, "docs/troubleshooting/README.md")), " ")
	for _, text := range []string{
		"open /var/run/secrets/azure/tokens/azure-identity-token: no such file or directory",
		"403 Forbidden",
		"Access Denied",
		"AZURE_CLIENT_ID",
		"AZURE_TENANT_ID",
		"Invalid identity token",
		"AADSTS70021: No matching federated identity record found",
		"An error occurred (InvalidIdentityToken) when calling the AssumeRoleWithWebIdentity operation",
		"No OpenIDConnect provider found in your account for https://",
		"Incorrect token audience",
		"Couldn't retrieve verification key from your identity provider, " +
			"please reference AssumeRoleWithWebIdentity documentation for requirements",
		"OpenIDConnect provider's HTTPS certificate doesn't match configured thumbprint",
		"Token expired: current date/time",
		"Not authorized to perform sts:AssumeRoleWithWebIdentity",
		"IDPCommunicationError",
		"DurationSeconds exceeds the MaxSessionDuration",
		"Credential should be scoped to a valid region",
		"The security token included in the request is expired",
		"Rate exceeded",
	} {
		if !strings.Contains(page, text) {
			t.Errorf("docs/troubleshooting/README.md lacks %q", text)
		}
	}
}

// Every check of doctor has a row in its reference, and every check that the page of
// symptoms names in brackets is one.
func TestSymptomsNameChecks(t *testing.T) {
	checks := constants(t, "policy/check", "[a-z-]+", named(" ID$"))
	if len(checks) < 20 {
		t.Fatalf("%d checks: %v", len(checks), checks)
	}
	reference := read(t, "docs/reference/doctor.md")
	for _, check := range checks {
		if !strings.Contains(reference, "\n| `"+check+"` |") && !strings.Contains(reference, "\n- `"+check+"`") {
			t.Errorf("docs/reference/doctor.md does not explain the check %s", check)
		}
	}
	for _, l := range lines(read(t, "docs/troubleshooting/README.md")) {
		for _, found := range inBrackets.FindAllStringSubmatch(l.text, -1) {
			for name := range strings.SplitSeq(found[1], ", ") {
				if !slices.Contains(checks, strings.Trim(name, "`")) {
					t.Errorf("docs/troubleshooting/README.md:%d: doctor has no check %s", l.number, name)
				}
			}
		}
	}
}
