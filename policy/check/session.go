package check

import (
	"strings"

	"github.com/ampbridge/ampbridge/policy"
)

// Refusal is AWS's answer to a call that failed, or its absence.
type Refusal struct {
	// Code is AWS's; empty: there was no answer.
	Code string
	// Text is AWS's message, or why there was no answer.
	Text string
	// Status is the HTTP status; 0: there was no answer.
	Status int
	// Second is the role that was to be assumed with the session of the first;
	// empty: it was the first.
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

// refusals of STS, by what its message holds
// (https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html).
var refusals = []struct{ code, text, do string }{
	{"InvalidIdentityToken", "Incorrect token audience", "register the token's audience with the OIDC provider, or project a token of the audience that it has"},
	{"InvalidIdentityToken", "No OpenIDConnect provider", "register the issuer, byte for byte, in the role's account: ampbridge sync does"},
	{"InvalidIdentityToken", "verification key", "AWS could not read the issuer's keys: they must be public, answer within 5 seconds, and hold the key that signed the token"},
	{"InvalidIdentityToken", "thumbprint", "give the OIDC provider the thumbprint of the CA that the issuer has now"},
	{"InvalidIdentityToken", "", "look at the token: AWS does not take it"},
	{"ExpiredToken", "", "look at the node's clock, and at AWS's: by AWS's the token has expired"},
	{"IDPCommunicationError", "", "AWS did not reach the issuer; this may pass: run doctor again"},
	{"ValidationError", "DurationSeconds", "shorten session.duration in the policy, or raise the role's maximum session duration"},
}

// RefusedSession judges a session that STS did not give. aligned: the documents
// were read, and let the subject in.
func RefusedSession(r Refusal, aligned bool) Finding {
	fails := func(do string) Finding { return Failed(Session, About{}, NewFix(do), "%s", r) }
	for _, known := range refusals {
		if strings.HasPrefix(r.Code, known.code) && strings.Contains(r.Text, known.text) {
			return fails(known.do)
		}
	}
	switch {
	case strings.HasPrefix(r.Code, "AccessDenied") && !r.Second.IsZero():
		return fails("let the trust document of the second role (assumeRole) allow sts:AssumeRole to the first")
	case strings.HasPrefix(r.Code, "AccessDenied") && aligned:
		return fails("the documents let the subject in, so this is IAM being late: a change takes seconds, rarely a minute, to reach STS; wait, and run doctor again. If it stays, a service control policy denies it")
	case strings.HasPrefix(r.Code, "AccessDenied"):
		return fails("the role is not there, or its trust document does not let this subject in with this audience: run doctor with credentials that may read IAM, or ampbridge sync")
	case r.Code == "":
		return fails("STS does not answer: look at sts.endpoint, sts.proxyURL and sts.caBundle in the policy, and at the network")
	}
	return fails("see what AWS says")
}

// RefusedWrite judges a remote write that AMP did not take.
func RefusedWrite(r Refusal, d policy.Destination) Finding {
	return Failed(Write, About{}, NewFix(ampFix(r, d, "aps:RemoteWrite")), "%s", r)
}

// RefusedQuery judges a query that AMP did not answer, made with the credentials
// of whoever runs doctor.
func RefusedQuery(r Refusal, d policy.Destination) Finding {
	if r.Status == 403 && !strings.Contains(r.Text, "region") {
		return Skipped(Query, About{}, "these credentials may not query: %s", r)
	}
	return Failed(Query, About{}, NewFix(ampFix(r, d, "aps:QueryMetrics")), "%s", r)
}

func ampFix(r Refusal, d policy.Destination, action string) string {
	switch {
	case strings.Contains(r.Text, "region"):
		return "the workspace lies in another region than " + d.Workspace.Region + ": copy its whole ARN into the policy, as aws amp list-workspaces prints it"
	case r.Status == 403:
		return "the role's documents allow " + action + " where they could be read, so something else denies it: a service control policy, the workspace's resource policy, or the VPC endpoint's policy"
	case r.Status == 404:
		return "copy the workspace's ARN into the policy, as aws amp list-workspaces prints it"
	case r.Status == 429:
		return "the workspace's limits are used up: have them raised"
	case r.Status == 0:
		return "the workspace's endpoint does not answer: look at destinations[].endpoint in the policy, and at the network"
	}
	return "see what AWS says"
}
