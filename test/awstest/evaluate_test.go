package awstest

import (
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/test/testkit"
)

const workspaceARN = "arn:aws:aps:eu-west-1:111122223333:workspace/ws-1"

func identity(t *testing.T, statements ...string) document {
	t.Helper()
	d, err := parseDocument(identityPolicy, `{"Version":"2012-10-17","Statement":[`+strings.Join(statements, ",")+`]}`)
	testkit.Must(t, err)
	return d
}

func TestEvaluateActionsAndResources(t *testing.T) {
	tests := []struct {
		name       string
		statements []string
		want       effect
	}{
		{"exact", []string{`{"Effect":"Allow","Action":"aps:RemoteWrite","Resource":"` + workspaceARN + `"}`}, allow},
		{"other action", []string{`{"Effect":"Allow","Action":"aps:QueryMetrics","Resource":"*"}`}, silent},
		{"other workspace", []string{`{"Effect":"Allow","Action":"aps:RemoteWrite","Resource":"` + workspaceARN + `2"}`}, silent},
		{"action in another case", []string{`{"Effect":"Allow","Action":"APS:remotewrite","Resource":"*"}`}, allow},
		{"wildcard action", []string{`{"Effect":"Allow","Action":["iam:*","aps:Remote*"],"Resource":"*"}`}, allow},
		{"one character", []string{`{"Effect":"Allow","Action":"aps:RemoteWrit?","Resource":"*"}`}, allow},
		{"wildcard resource", []string{`{"Effect":"Allow","Action":"*","Resource":"arn:aws:aps:*:111122223333:workspace/*"}`}, allow},
		{"resource is case-sensitive", []string{`{"Effect":"Allow","Action":"*","Resource":"arn:aws:aps:*:*:Workspace/*"}`}, silent},
		{"a wildcard stays in its part", []string{`{"Effect":"Allow","Action":"*","Resource":"arn:aws:aps:*:workspace/ws-1"}`}, silent},
		{"deny wins, whatever the order", []string{
			`{"Effect":"Deny","Action":"aps:RemoteWrite","Resource":"*"}`,
			`{"Effect":"Allow","Action":"*","Resource":"*"}`,
		}, deny},
		{"not action", []string{`{"Effect":"Allow","NotAction":"iam:*","Resource":"*"}`}, allow},
		{"not action that covers it", []string{`{"Effect":"Allow","NotAction":"aps:*","Resource":"*"}`}, silent},
		{"not resource", []string{`{"Effect":"Allow","Action":"*","NotResource":"` + workspaceARN + `"}`}, silent},
		{"variable", []string{`{"Effect":"Allow","Action":"*","Resource":"arn:aws:aps:*:${aws:PrincipalAccount}:workspace/*"}`}, allow},
		{
			"variable without a value",
			[]string{`{"Effect":"Allow","Action":"*","Resource":"arn:aws:aps:*:${aws:PrincipalTag/account}:workspace/*"}`},
			silent,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			a := access{"aps:RemoteWrite", workspaceARN, conditionContext{"aws:principalaccount": {"111122223333"}}}
			if got := evaluate([]document{identity(t, test.statements...)}, a); got != test.want {
				t.Errorf("evaluate() = %v, want %v", got, test.want)
			}
		})
	}
}

func TestPermissionsAreAnIntersection(t *testing.T) {
	write := identity(t, `{"Effect":"Allow","Action":"aps:RemoteWrite","Resource":"*"}`)
	query := identity(t, `{"Effect":"Allow","Action":"aps:QueryMetrics","Resource":"*"}`)
	never := identity(t, `{"Effect":"Deny","Action":"*","Resource":"*"}`)
	tests := []struct {
		name   string
		p      permissions
		reason string // empty: allowed
	}{
		{"identity alone", permissions{identity: []document{write}}, ""},
		{"nothing", permissions{}, "because no identity-based policy allows the aps:RemoteWrite action"},
		{"boundary agrees", permissions{identity: []document{write}, boundary: &write}, ""},
		{
			"boundary is silent",
			permissions{identity: []document{write}, boundary: &query},
			"because no permissions boundary allows the aps:RemoteWrite action",
		},
		{
			"a boundary gives nothing",
			permissions{identity: []document{query}, boundary: &write},
			"because no identity-based policy allows the aps:RemoteWrite action",
		},
		{"boundary denies", permissions{identity: []document{write}, boundary: &never}, "with an explicit deny in a permissions boundary"},
		{
			"session policy is silent",
			permissions{identity: []document{write}, session: &query},
			"because no session policy allows the aps:RemoteWrite action",
		},
		{"identity denies", permissions{identity: []document{write, never}}, "with an explicit deny in an identity-based policy"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			ok, reason := test.p.decide(access{"aps:RemoteWrite", workspaceARN, conditionContext{}})
			if ok != (test.reason == "") || reason != test.reason {
				t.Errorf("decide() = %v, %q; want reason %q", ok, reason, test.reason)
			}
		})
	}
}

func TestConditions(t *testing.T) {
	tests := []struct {
		name      string
		condition string
		have      []string // values of the key k; none: absent
		want      bool
	}{
		{"equals", `{"StringEquals":{"k":"a"}}`, []string{"a"}, true},
		{"equals one of several", `{"StringEquals":{"k":["a","b"]}}`, []string{"b"}, true},
		{"equals is case-sensitive", `{"StringEquals":{"k":"a"}}`, []string{"A"}, false},
		{"equals knows no wildcard", `{"StringEquals":{"k":"*"}}`, []string{"a"}, false},
		{"key names are not case-sensitive", `{"StringEquals":{"K":"a"}}`, []string{"a"}, true},
		{"equals, absent", `{"StringEquals":{"k":"a"}}`, nil, false},
		{"like", `{"StringLike":{"k":"system:*:team-?:p"}}`, []string{"system:x:team-a:p"}, true},
		{"like is anchored", `{"StringLike":{"k":"a*b"}}`, []string{"axbc"}, false},
		{"like, absent", `{"StringLike":{"k":"*"}}`, nil, false},
		{"not equals", `{"StringNotEquals":{"k":["a","b"]}}`, []string{"c"}, true},
		{"not equals, one matches", `{"StringNotEquals":{"k":["a","b"]}}`, []string{"b"}, false},
		{"not equals, absent", `{"StringNotEquals":{"k":"a"}}`, nil, true},
		{"if exists, absent", `{"StringEqualsIfExists":{"k":"a"}}`, nil, true},
		{"if exists, present", `{"StringEqualsIfExists":{"k":"a"}}`, []string{"b"}, false},
		{"for all values, absent", `{"ForAllValues:StringEquals":{"k":"a"}}`, nil, true},
		{"for all values", `{"ForAllValues:StringEquals":{"k":["a","b"]}}`, []string{"a", "b"}, true},
		{"for all values, one is foreign", `{"ForAllValues:StringEquals":{"k":["a","b"]}}`, []string{"a", "c"}, false},
		{"for any value", `{"ForAnyValue:StringEquals":{"k":"a"}}`, []string{"c", "a"}, true},
		{"for any value, absent", `{"ForAnyValue:StringEquals":{"k":"a"}}`, nil, false},
		{"null wants absence", `{"Null":{"k":"true"}}`, nil, true},
		{"null wants presence", `{"Null":{"k":"false"}}`, nil, false},
		{"bool written bare", `{"Bool":{"k":true}}`, []string{"true"}, true},
		{"arn", `{"ArnEquals":{"k":"arn:aws:iam::*:role/x"}}`, []string{"arn:aws:iam::1:role/x"}, true},
		{"number", `{"NumericLessThanEquals":{"k":3600}}`, []string{"900"}, true},
		{"number too big", `{"NumericLessThan":{"k":"900"}}`, []string{"900"}, false},
		{"date", `{"DateGreaterThan":{"k":"2026-01-01T00:00:00Z"}}`, []string{"2026-06-01T00:00:00Z"}, true},
		{"all operators must hold", `{"StringEquals":{"k":"a"},"StringLike":{"other":"*"}}`, []string{"a"}, false},
		{"all keys must hold", `{"StringEquals":{"k":"a","other":"a"}}`, []string{"a"}, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			context := conditionContext{}
			context.set("k", test.have...)
			d := identity(t, `{"Effect":"Allow","Action":"*","Resource":"*","Condition":`+test.condition+`}`)
			if got := evaluate([]document{d}, access{"a:b", workspaceARN, context}) == allow; got != test.want {
				t.Errorf("holds = %v, want %v", got, test.want)
			}
		})
	}
}

func TestMalformedDocuments(t *testing.T) {
	const allowAll = `"Effect":"Allow","Action":"*","Resource":"*"`
	const federated = `"Effect":"Allow","Principal":{"Federated":"x"},"Action":"sts:AssumeRoleWithWebIdentity"`
	tests := []struct {
		name, text, want string
		kind             documentKind
	}{
		{"no JSON", `{`, "Syntax errors in policy.", identityPolicy},
		{"unknown element", `{"Statement":{` + allowAll + `,"Actions":"*"}}`, "Syntax errors in policy.", identityPolicy},
		{"duplicate element", `{"Statement":{` + allowAll + `,"Action":"a:b"}}`, "Syntax errors in policy.", identityPolicy},
		{"no statement", `{"Version":"2012-10-17"}`, "Syntax errors in policy.", identityPolicy},
		{
			"version",
			`{"Version":"2026-01-01","Statement":{` + allowAll + `}}`,
			"The policy must contain a valid version string.",
			identityPolicy,
		},
		{"effect", `{"Statement":{"Effect":"allow","Action":"*","Resource":"*"}}`, "Syntax errors in policy.", identityPolicy},
		{
			"sid",
			`{"Statement":{"Sid":"a-b",` + allowAll + `}}`,
			"Statement IDs (SID) must be alpha-numeric. Check that your input satisfies the regular expression [0-9A-Za-z]*",
			identityPolicy,
		},
		{
			"sid twice",
			`{"Statement":[{"Sid":"a",` + allowAll + `},{"Sid":"a",` + allowAll + `}]}`,
			"Statement IDs (SID) in a single policy must be unique.",
			identityPolicy,
		},
		{
			"no vendor",
			`{"Statement":{"Effect":"Allow","Action":"RemoteWrite","Resource":"*"}}`,
			"Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.",
			identityPolicy,
		},
		{"no resource", `{"Statement":{"Effect":"Allow","Action":"*"}}`, "Policy statement must contain resources.", identityPolicy},
		{
			"resource",
			`{"Statement":{"Effect":"Allow","Action":"*","Resource":"ws-1"}}`,
			`Resource ws-1 must be in ARN format or "*".`,
			identityPolicy,
		},
		{
			"principal in an identity policy",
			`{"Statement":{` + allowAll + `,"Principal":"*"}}`,
			"Policy document should not specify a principal.",
			identityPolicy,
		},
		{
			"operator",
			`{"Statement":{` + allowAll + `,"Condition":{"StringMatches":{"k":"v"}}}}`,
			"Invalid Condition type : StringMatches.",
			identityPolicy,
		},
		{"resource in a trust policy", `{"Statement":{` + federated + `,"Resource":"*"}}`, "Has prohibited field Resource", trustPolicy},
		{
			"no principal in a trust policy",
			`{"Statement":{"Effect":"Allow","Action":"sts:AssumeRole"}}`,
			"Missing required field Principal",
			trustPolicy,
		},
		{
			"foreign action in a trust policy",
			`{"Statement":{"Effect":"Allow","Principal":"*","Action":"aps:RemoteWrite"}}`,
			"AssumeRole policy may only specify STS AssumeRole actions.",
			trustPolicy,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := parseDocument(test.kind, test.text)
			if err == nil || err.Error() != "MalformedPolicyDocument: "+test.want {
				t.Errorf("error = %v, want %s", err, test.want)
			}
		})
	}
}

func TestCanonicalFormDiffersFromTheInput(t *testing.T) {
	d, err := parseDocument(identityPolicy, `{
		"Version": "2012-10-17",
		"Statement": [{"Effect": "Allow", "Action": ["aps:A", "aps:B"], "Resource": ["*"]}]
	}`)
	testkit.Must(t, err)
	const want = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["aps:B","aps:A"],"Resource":"*"}]}`
	if got := d.canonical(); got != want {
		t.Errorf("canonical() = %s\nwant %s", got, want)
	}
}
