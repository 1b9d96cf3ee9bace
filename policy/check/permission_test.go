package check

import (
	"fmt"
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/policy"
)

func TestPermission(t *testing.T) {
	chained := destination
	chained.AssumeRole = second
	for _, c := range []struct {
		name        string
		documents   []string
		destination policy.Destination
		status      Status
		message     string
	}{
		{"ours", []string{policy.PermissionDocument(destination).String()}, destination, Pass, "allows aps:RemoteWrite"},
		{"ours, chained", []string{policy.PermissionDocument(chained).String()}, chained, Pass, "allows sts:AssumeRole on " + second.String()},
		{"not the chain's", []string{policy.PermissionDocument(destination).String()}, chained, Fail, "nothing in it allows sts:AssumeRole"},
		{"AWS's managed policy", []string{`{"Statement":[{"Action":["aps:RemoteWrite"],"Effect":"Allow","Resource":"*"}]}`}, destination, Pass,
			"allows"},
		{"wildcards, cases", []string{`{"Statement":[{"Action":"APS:remote*","Effect":"Allow",` +
			`"Resource":"arn:aws:aps:eu-west-?:*:workspace/ws-*"}]}`}, destination, Pass, "allows"},
		{"NotAction", []string{`{"Statement":[{"NotAction":"iam:*","Effect":"Allow","Resource":"*"}]}`}, destination, Pass, "allows"},
		{"NotResource", []string{`{"Statement":[{"Action":"aps:*","Effect":"Allow","NotResource":"*/ws-1"}]}`}, destination, Fail,
			"nothing in it"},
		{"another workspace", []string{`{"Statement":[{"Action":"aps:RemoteWrite","Effect":"Allow","Resource":"arn:x"}]}`}, destination, Fail,
			"on arn:x, and not on"},
		{"denied elsewhere", []string{policy.PermissionDocument(destination).String(), `{"Statement":[{"Action":"*","Effect":"Deny",` +
			`"Resource":"*"}]}`}, destination, Fail, "a policy of the role denies"},
		{"a condition decides", []string{`{"Statement":[{"Action":"aps:RemoteWrite","Effect":"Allow","Resource":"*",` +
			`"Condition":{"IpAddress":{"aws:SourceIp":"192.0.2.0/24"}}}]}`}, destination, Warn, "conditions decide"},
		{"a condition may deny", []string{policy.PermissionDocument(destination).String(), `{"Statement":[{"Action":"*",` +
			`"Effect":"Deny","Resource":"*","Condition":{"Bool":{"aws:MultiFactorAuthPresent":"false"}}}]}`}, destination, Warn,
			"statement 1 denies it if Bool of aws:MultiFactorAuthPresent is false"},
		{"allowed for a claim of the session", []string{`{"Statement":[{"Action":"aps:*","Effect":"Allow","Resource":"*",` +
			`"Condition":{"StringEquals":{"example.com:aud":"sts.amazonaws.com"}}}]}`}, destination, Warn,
			"statement 1 allows it if StringEquals of example.com:aud"},
		{"denied for a claim of the session", []string{policy.PermissionDocument(destination).String(), `{"Statement":[{"Action":"*",` +
			`"Effect":"Deny","Resource":"*","Condition":{"StringNotEquals":{"example.com:sub":"x"}}}]}`}, destination, Warn,
			"statement 1 denies it if StringNotEquals of example.com:sub"},
		{"a variable in the resource", []string{`{"Statement":[{"Action":"aps:*","Effect":"Allow",` +
			`"Resource":"arn:aws:aps:eu-west-1:${aws:PrincipalAccount}:workspace/*"}]}`}, destination, Warn,
			"statement 1 allows it if arn:aws:aps:eu-west-1:${aws:PrincipalAccount}:workspace/* is " + destination.Workspace.String()},
		{"a variable in a denied resource", []string{policy.PermissionDocument(destination).String(), `{"Statement":[{"Action":"*",` +
			`"Effect":"Deny","NotResource":"arn:aws:*:*:${aws:PrincipalAccount}:*"}]}`}, destination, Warn, "statement 1 denies it if"},
		{"a variable in another resource", []string{`{"Statement":[{"Action":"aps:*","Effect":"Allow",` +
			`"Resource":"arn:aws:aps:us-east-1:${aws:PrincipalAccount}:workspace/*"}]}`}, destination, Fail, "and not on"},
		{"many wildcards", []string{`{"Statement":[{"Action":"aps:*","Effect":"Allow","Resource":"arn:` +
			strings.Repeat("*a", 40) + `*!"}]}`}, destination, Fail, "and not on"},
		{"denied without TLS", []string{policy.PermissionDocument(destination).String(), `{"Statement":[{"Action":"*",` +
			`"Effect":"Deny","Resource":"*","Condition":{"Bool":{"aws:SecureTransport":"false"}}}]}`}, destination, Pass, "allows"},
		{"allowed in another region", []string{`{"Statement":[{"Action":"aps:*","Effect":"Allow","Resource":"*",` +
			`"Condition":{"StringEquals":{"aws:RequestedRegion":"us-east-1"}}}]}`}, destination, Fail,
			"StringEquals of aws:RequestedRegion is us-east-1"},
		{"allowed with and without a condition", []string{`{"Statement":[{"Action":"aps:*","Effect":"Allow","Resource":"*",` +
			`"Condition":{"IpAddress":{"aws:SourceIp":"192.0.2.0/24"}}}]}`, policy.PermissionDocument(destination).String()},
			destination, Pass, "allows"},
		{"none", nil, destination, Fail, "nothing in it allows"},
	} {
		t.Run(c.name, func(t *testing.T) {
			judged(t, Permission(rolePolicies(t, c.documents), "", c.destination, NewFix("sync")), c.status, c.message)
		})
	}
	// The message names the policies that sync did not write.
	ours := policy.PermissionDocument(destination).String()
	wide := `{"Statement":[{"Action":"s3:*","Effect":"Allow","Resource":"*"}]}`
	judged(t, Permission(rolePolicies(t, []string{ours}), "policy-0", destination, NewFix("sync")), Pass, "allows aps:RemoteWrite")
	judged(t, Permission(rolePolicies(t, []string{ours, wide, wide}), "policy-0", destination, NewFix("sync")), Warn,
		"policies that sync did not write and does not change: policy-1, policy-2")
	judged(t, Permission(rolePolicies(t, []string{ours, wide}), "", destination, NewFix("sync")), Pass,
		"by the policies policy-0, policy-1 together")
}

func TestBounds(t *testing.T) {
	const arn = "arn:aws:iam::111122223333:policy/boundary"
	writes := policy.PermissionDocument(destination)
	reads := policy.Document{Statement: []policy.Statement{{Effect: "Allow", Action: policy.Values{"s3:*"}, Resource: policy.Values{"*"}}}}
	denies := policy.Document{Statement: []policy.Statement{{Effect: "Deny", Action: policy.Values{"aps:*"}, Resource: policy.Values{"*"}}}}
	for _, c := range []struct {
		name     string
		seen     BoundaryState
		wanted   string
		status   Status
		message  string
		commands int
	}{
		{"ours", BoundaryState{ARN: arn, Document: &writes}, arn, Pass, "allows aps:RemoteWrite", 0},
		{"none wanted", BoundaryState{}, "", Pass, "requires none", 0},
		{"one that is not required", BoundaryState{ARN: arn, Document: &writes}, "", Pass, "allows", 0},
		{"missing", BoundaryState{}, arn, Fail, "the role has none", 0},
		{"another", BoundaryState{ARN: "arn:x", Document: &writes}, arn, Fail, "the role's is arn:x", 0},
		{"too narrow", BoundaryState{ARN: arn, Document: &reads}, arn, Fail, "does not allow", 1},
		{"denies", BoundaryState{ARN: arn, Document: &denies}, arn, Fail, "does not allow", 0},
		{"unreadable", BoundaryState{ARN: arn, Problem: "AccessDenied"}, arn, Skip, "AccessDenied", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := Bounds(c.seen, c.wanted, destination, NewFix("sync"), NewFix("bootstrap"))
			judged(t, f, c.status, c.message)
			if f.Fix != nil && len(f.Fix.Commands) != c.commands {
				t.Errorf("commands %v, want %d", f.Fix.Commands, c.commands)
			}
		})
	}
}

// A reader needs all four permissions of a query, and no permission to write.
func TestReaders(t *testing.T) {
	const arn = "arn:aws:iam::111122223333:policy/boundary"
	reader, both := destination, destination
	reader.Access, both.Access = []policy.Access{policy.AccessQuery}, []policy.Access{policy.AccessWrite, policy.AccessQuery}
	writes, reads := policy.PermissionDocument(destination), policy.PermissionDocument(reader)
	some := policy.PermissionDocument(reader)
	some.Statement[0].Action = some.Statement[0].Action[:3]
	denies := policy.PermissionDocument(both)
	denies.Statement = append(denies.Statement,
		policy.Statement{Effect: "Deny", Action: policy.Values{"aps:GetLabels"}, Resource: policy.Values{"*"}})
	const queries = "aps:QueryMetrics, aps:GetSeries, aps:GetLabels, aps:GetMetricMetadata"
	for _, c := range []struct {
		name              string
		document          policy.Document
		d                 policy.Destination
		status            Status
		message, bounding string // bounding is what the fix of the boundary has
	}{
		{"a reader's", reads, reader, Pass, "allows " + queries + " on", ""},
		{"a writer's", writes, reader, Fail, "allows " + queries + " on", "bootstrap"},
		{"a writer's that reads from now on", writes, both, Fail, "allows " + queries + " on", "bootstrap"},
		{"a reader's that writes from now on", reads, both, Fail, "allows aps:RemoteWrite on", "let the boundary allow aps:RemoteWrite on"},
		{"not all of it", some, reader, Fail, "aps:GetMetricMetadata", "let the boundary allow aps:GetMetricMetadata on"},
		{"one denied", denies, both, Fail, "aps:GetLabels", "let the boundary allow aps:GetLabels on"},
	} {
		t.Run(c.name, func(t *testing.T) {
			document := c.document.String()
			f := Permission(rolePolicies(t, []string{document}), "", c.d, NewFix("sync"))
			if f.Status != c.status || !strings.Contains(f.Message, strings.TrimPrefix(c.message, "allows ")) {
				t.Errorf("permission: %s %q, want %s with %q", f.Status, f.Message, c.status, c.message)
			}
			f = Bounds(BoundaryState{ARN: arn, Document: &c.document}, arn, c.d, NewFix("sync"), NewFix("bootstrap"))
			if f.Status != c.status || c.bounding != "" && !strings.Contains(f.Fix.Summary, c.bounding) {
				t.Errorf("boundary: %s %q (%v), want %s and a fix with %q", f.Status, f.Message, f.Fix, c.status, c.bounding)
			}
		})
	}
	judged(t, RefusedRead(Refusal{Code: "AccessDeniedException", Status: 403}, reader), Fail, "AccessDenied")
}

// rolePolicies returns policies with the names policy-0, policy-1 and so on.
func rolePolicies(t *testing.T, documents []string) (list []RolePolicy) {
	t.Helper()
	for i, text := range documents {
		d, err := policy.ParseDocument(text)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, RolePolicy{fmt.Sprint("policy-", i), d})
	}
	return list
}
