package docs

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/policy/check"
)

var inBrackets = regexp.MustCompile("\\[(`[a-z-]+`(?:, `[a-z-]+`)*)\\](?:[^(]|$)")

// The page of symptoms has each error text as people see and search it, on one line: those of
// the guides before ampbridge, and those of STS, IAM, AMP and Prometheus.
func TestSymptoms(t *testing.T) {
	page := read(t, "docs/troubleshooting/README.md")
	for _, text := range []string{
		// The guide for AKS, and the module for EKS.
		"open /var/run/secrets/azure/tokens/azure-identity-token: no such file or directory",
		"403 Forbidden",
		"Access Denied",
		"Missing AZURE_CLIENT_ID, AZURE_TENANT_ID or token file",
		"azure-wi-webhook",
		"Invalid identity token",
		"AADSTS70021: No matching federated identity record found",
		"An error occurred (InvalidIdentityToken) when calling the AssumeRoleWithWebIdentity operation",
		// STS: https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html
		"No OpenIDConnect provider found in your account for https://",
		"Incorrect token audience",
		"Couldn't retrieve verification key from your identity provider,  " +
			"please reference AssumeRoleWithWebIdentity documentation for requirements",
		"OpenIDConnect provider's HTTPS certificate doesn't match configured thumbprint",
		"An error occurred (AccessDenied) when calling the AssumeRoleWithWebIdentity operation: " +
			"Not authorized to perform sts:AssumeRoleWithWebIdentity",
		"is not authorized to perform: sts:AssumeRole on resource",
		"ExpiredTokenException",
		"Token expired: current date/time",
		"IDPCommunicationError",
		"IDPRejectedClaim",
		"DurationSeconds exceeds the MaxSessionDuration set for this role",
		"DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining",
		"RegionDisabledException",
		"PackedPolicyTooLarge",
		"MalformedPolicyDocument",
		"ThrottlingException",
		"Rate exceeded",
		// AMP: https://docs.aws.amazon.com/prometheus/latest/userguide/AMP-troubleshooting.html
		"is not authorized to perform: aps:RemoteWrite on resource",
		"because no identity-based policy allows",
		"because no permissions boundary allows",
		"with an explicit deny in a service control policy",
		"Missing Authentication Token",
		"Credential should be scoped to a valid region",
		"SignatureDoesNotMatch",
		"The security token included in the request is expired",
		"The security token included in the request is invalid",
		"429 Too Many Requests",
		"ingestion rate limit",
		"per-user series limit",
		"out of order sample",
		"duplicate sample for timestamp",
		"Workspace not found",
		"413 Request Entity Too Large",
		// Prometheus
		"non-recoverable error",
		"Failed to send batch, retrying",
		"could not get SigV4 credentials: NoCredentialProviders: no valid providers in chain",
		"no EC2 IMDS role found",
		"context deadline exceeded",
		"connect: connection refused",
		"too many HA clusters",
		"maxFailure (quorum) on a given error family",
		// the sidecar and the kubelet
		"STS cannot be reached",
		"no such host",
		"x509: certificate signed by unknown authority",
		"Startup probe failed",
		"Init:CrashLoopBackOff",
		"exec format error",
		"OOMKilled",
		`MountVolume.SetUp failed for volume "ampbridge-source"`,
		`violates PodSecurity "restricted:latest"`,
		"FailedToRetrieveImagePullSecret",
		"writes to this workspace already",
		// IAM
		"LimitExceeded: Cannot exceed quota for OpenIdConnectProvidersPerAccount",
		"LimitExceeded: Cannot exceed quota for ACLSizePerRole",
		"EntityAlreadyExists",
		"Invalid principal in policy",
	} {
		if !strings.Contains(page, text) {
			t.Errorf("docs/troubleshooting/README.md lacks %q", text)
		}
	}
}

// Doctor's reference has every check with its question, in the order of the report, and every
// check that the page of symptoms names in brackets is one.
func TestSymptomsNameChecks(t *testing.T) {
	_, rest, _ := strings.Cut(read(t, "docs/reference/doctor.md"), "\n## Checks\n")
	var checks []string
	for _, c := range check.All {
		checks = append(checks, string(c.ID))
		_, after, found := strings.Cut(rest, "\n- `"+string(c.ID)+"`\n  - question: "+c.Question+"\n")
		if !found {
			t.Errorf("docs/reference/doctor.md lacks at its place the check %s with the question: %s", c.ID, c.Question)
			continue
		}
		rest = after
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
