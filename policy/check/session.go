package check

import (
	"strings"

	"github.com/ampbridge/ampbridge/policy"
)

// Refusal is AWS's answer to a call that failed, or the reason why there was no answer.
type Refusal struct {
	// Code is AWS's; empty: there was no answer.
	Code string
	// Text is AWS's message, or why there was no answer.
	Text string
	// Status is the HTTP status; 0: there was no answer.
	Status int
	// Second is the second role (assumeRole) if AWS refused its session; zero: AWS refused the
	// first role.
	Second policy.ARN
}

func (r Refusal) String() string {
	text := r.Text
	if r.Code != "" {
		text = r.Code + ": " + text
	}
	if !r.Second.IsZero() {
		text = "the second role, " + r.Second.String() + ": " + text
	}
	return text
}

// refusals are STS's errors, by code and a part of the message, with the fix
// (https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html).
var refusals = []struct{ code, text, fix string }{
	{
		"InvalidIdentityToken",
		"Incorrect token audience",
		"register the token's audience with the OIDC provider, or project a token for the audience of the provider",
	},
	{
		"InvalidIdentityToken",
		"No OpenIDConnect provider",
		"register the issuer, byte for byte, in the role's account: ampbridge sync does this",
	},
	{
		"InvalidIdentityToken",
		"verification key",
		"AWS could not read the issuer's keys: they must be public, be served within 5 seconds, and include the key that signed the token",
	},
	{"InvalidIdentityToken", "thumbprint", "set the OIDC provider's thumbprint to that of the issuer's current CA"},
	{"InvalidIdentityToken", "", "check the token: AWS does not accept it"},
	{"ExpiredToken", "", "check the clocks of the node and the issuer: by AWS's clock the token has expired"},
	{"IDPCommunicationError", "", "AWS did not reach the issuer; run doctor again, the error may be temporary"},
	{
		"RegionDisabledException",
		"",
		"activate STS in that region (IAM console, account settings), or set sts.endpoint in the policy to another region's",
	},
	{"Throttling", "", "STS limits the rate of calls of the account: run doctor again; the sidecar waits and repeats its calls"},
	{"ValidationError", "DurationSeconds", "shorten session.duration in the policy, or raise the role's maximum session duration"},
}

// NoAnswer reports whether AWS did not answer.
func (r Refusal) NoAnswer() bool { return r.Code == "" && r.Status == 0 }

// Unread reports whether STS refused the token because it could not read the issuer's keys.
func (r Refusal) Unread() bool {
	return strings.HasPrefix(r.Code, "IDPCommunicationError") || strings.Contains(r.Text, "verification key")
}

// Unanswered judges a call to AWS's default address that got no answer. Such a call proves nothing
// about the pods, because they have another network than this machine.
func Unanswered(r Refusal) Finding {
	f := Skipped("", About{}, "this machine could not reach AWS, and it is not proven that the pods can: %s", r)
	f.Fix = &Fix{
		Summary: "check this machine's network (DNS, proxy, firewall), or run doctor in an injected pod",
		Commands: []Command{{"kubectl", "exec", "--namespace", "NAMESPACE", "POD", "--container", "ampbridge-config", "--",
			"/ampbridge", "doctor", "--in-pod"}},
	}
	return f
}

// RefusedSession judges a refusal of STS. trust is the finding about the trust document; zero: it
// was not read.
func RefusedSession(r Refusal, trust Finding) Finding {
	fails := func(fix string) Finding { return Failed(Session, About{}, NewFix(fix), "%s", r) }
	for _, known := range refusals {
		if strings.HasPrefix(r.Code, known.code) && strings.Contains(r.Text, known.text) {
			return fails(known.fix)
		}
	}
	switch {
	case strings.HasPrefix(r.Code, "AccessDenied") && !r.Second.IsZero():
		return fails("let the trust document of the second role (assumeRole) allow sts:AssumeRole to the first; a condition on sts:ExternalId " +
			"must have the destination's externalID")
	case strings.HasPrefix(r.Code, "AccessDenied") && trust.Proof == Session:
		return fails("let the conditions of the trust document hold for this token, or remove them: " + trust.Message)
	case strings.HasPrefix(r.Code, "AccessDenied") && (trust.Status == Pass || trust.Status == Warn):
		return fails(
			"the documents let the subject in, so the change has probably not reached STS: that takes seconds, rarely a minute; wait, " +
				"and run doctor again. If the error stays, a service control policy denies it",
		)
	case strings.HasPrefix(r.Code, "AccessDenied"):
		return fails(
			"the role does not exist, or its trust document does not let this subject in with this audience: run doctor with credentials " +
				"that may read IAM, or run ampbridge sync",
		)
	case r.Status >= 500:
		return fails(awsFails)
	case r.NoAnswer():
		return fails("STS does not answer: check sts.endpoint, sts.proxyURL and sts.caBundle in the policy, and the network")
	}
	return fails("read the message of AWS")
}

// RefusedWrite judges AMP's refusal of a remote write.
func RefusedWrite(r Refusal, d policy.Destination) Finding {
	fix := NewFix(ampFix(r, d, "aps:RemoteWrite"))
	if r.Status == 403 && !d.AssumeRole.IsZero() && containsFolded(r.Text, "no identity-based policy") {
		second := d
		second.AssumeRole = policy.ARN{}
		fix.Commands = []Command{{"aws", "iam", "put-role-policy", "--role-name", d.AssumeRole.RoleName(),
			"--policy-name", "ampbridge-" + d.Workspace.ID(), // other clusters may use the role too
			"--policy-document", policy.PermissionDocument(second).String()}}
	}
	return Failed(Write, About{}, fix, "%s", r)
}

// RefusedQuery judges AMP's refusal of a query that the caller's own credentials signed.
func RefusedQuery(r Refusal, d policy.Destination) Finding {
	if r.Status == 403 && !r.otherRegion() {
		return Skipped(Query, About{}, "these credentials may not query: %s", r)
	}
	if r.Status == 429 {
		return Warned(Query, About{}, NewFix(ampFix(r, d, "aps:QueryMetrics")), "AMP limits queries, which does not concern writes: %s", r)
	}
	return Failed(Query, About{}, NewFix(ampFix(r, d, "aps:QueryMetrics")), "%s", r)
}

// RefusedRead judges AMP's refusal of a query that a reader's session signed.
func RefusedRead(r Refusal, d policy.Destination) Finding {
	return Failed(Read, About{}, NewFix(ampFix(r, d, "aps:QueryMetrics")), "%s", r)
}

// awsFails is the fix for an error of AWS itself.
const awsFails = "AWS fails: run doctor again; if it stays, see the AWS Health Dashboard"

// clock reports whether AWS refused the request because of its time.
func (r Refusal) clock() bool {
	return strings.Contains(r.Text, "Signature expired") || strings.Contains(r.Text, "Signature not yet current") ||
		containsFolded(r.Text, "too old") || containsFolded(r.Text, "in the future")
}

// otherRegion reports whether AMP refused the signature because it is for another region.
func (r Refusal) otherRegion() bool {
	return strings.Contains(r.Text, "scoped to a valid region")
}

// denials are the reasons in AWS's message of a 403, with the fix
// (https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_access-denied.html).
var denials = []struct{ text, fix string }{
	{"service control policy", "the organization's service control policy denies it: its administrators must allow "},
	{"resource control policy", "the organization's resource control policy denies it: its administrators must allow "},
	{"vpc endpoint policy", "the policy of the VPC endpoint denies it: allow there "},
	{"resource-based policy", "the workspace's resource policy denies it: allow there "},
	{"permissions boundary", "the role's permissions boundary does not allow it: allow there "},
	{"session policy", "a policy of the session denies it: allow there "},
	{"identity-based policy", "the role's own policies do not allow it: allow there "},
}

// denied returns the fix of a 403 of a role.
func denied(r Refusal, d policy.Destination, action string) string {
	what := action + " on " + d.Workspace.String()
	second := ""
	if !d.AssumeRole.IsZero() {
		second = " (the second role, " + d.AssumeRole.String() + ", makes the call)"
	}
	for _, known := range denials {
		if containsFolded(r.Text, known.text) {
			return known.fix + what + second
		}
	}
	return "the role's documents allow " + action + " where they could be read, so something else denies it: a service control " +
		"policy, the workspace's resource policy, or the VPC endpoint's policy" + second
}

func containsFolded(text, part string) bool { return strings.Contains(strings.ToLower(text), part) }

func ampFix(r Refusal, d policy.Destination, action string) string {
	switch {
	case r.clock():
		return "check the clock of this machine: AWS refuses the request because of its time"
	case strings.HasPrefix(r.Code, "MissingAuthenticationToken"):
		return "check destinations[].endpoint in the policy, and the proxies in between: AMP got no signature at this address"
	case r.Status == 413:
		return "check the proxies in between: doctor's sample is small, and AMP does not refuse it for its size"
	case r.Status >= 500:
		return awsFails
	case r.otherRegion():
		return "the workspace is in another region than " + d.Workspace.Region + ": copy its whole ARN into the policy, as aws amp " +
			"list-workspaces prints it"
	case r.Status == 403 && containsFolded(r.Text, "kms"):
		return "the workspace's KMS key is disabled, or its key policy does not let AMP use it: enable the key, and check its key policy"
	case r.Status == 403:
		return denied(r, d, action)
	case r.Status == 404:
		return "copy the workspace's ARN into the policy, as aws amp list-workspaces prints it"
	case r.Status == 429:
		return "the workspace's limits are used up: request higher ones"
	case r.Status == 400 && (containsFolded(r.Text, "out of order") || containsFolded(r.Text, "duplicate")):
		return "another writer sends the same series: give each Prometheus an external label of its own, or set ha in the grant"
	case r.Status == 400 && containsFolded(r.Text, "label"):
		return "AMP limits the labels of a series (number, and length of names and values): shorten cluster.name, or drop labels with " +
			"remoteWrite.writeRelabelConfigs in the policy"
	case r.NoAnswer():
		return "the workspace's endpoint does not answer: check destinations[].endpoint, remoteWrite.proxyURL and remoteWrite.caBundle in the " +
			"policy, and the network"
	}
	return "read the message of AWS"
}
