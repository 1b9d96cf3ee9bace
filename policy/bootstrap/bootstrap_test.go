package bootstrap_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/bootstrap"
	"github.com/ampbridge/ampbridge/policy/plan"
	"github.com/ampbridge/ampbridge/test/policytest"
	"github.com/ampbridge/ampbridge/test/testkit"
)

const (
	account = "111122223333"
	second  = "444455556666"
	issuer  = policy.Issuer("https://oidc.eks.eu-west-1.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF")

	base = policytest.TwoAccounts
)

var self = policy.Subject{Namespace: "ampbridge-system", ServiceAccount: "ampbridge-sync"}

func desired(t *testing.T, text, account string, change ...func(*bootstrap.Input)) bootstrap.Central {
	t.Helper()
	in := bootstrap.Input{Policy: policytest.ParseDraft(t, text), Issuer: issuer, Account: account, Sync: self}
	in.Tags = map[string]string{"team": "a b@c=d"}
	for _, c := range change {
		c(&in)
	}
	c, err := bootstrap.Desired(in)
	testkit.Must(t, err)
	return c
}

func TestGoldens(t *testing.T) {
	for _, id := range []string{account, second} {
		c := desired(t, base, id)
		testkit.Golden(t, "testdata/"+id+".txt", []byte(bootstrap.Compute(c, bootstrap.Found{Workspaces: []bootstrap.FoundWorkspace{
			{ARN: c.Workspaces[len(c.Workspaces)-1].ARN, Alias: "by hand"},
		}}).String()))
		testkit.Golden(t, "testdata/"+id+".sh", []byte(bootstrap.Script(c, false)))
	}
}

// Sync's permissions are those of package policy in every account, and only sync may assume its
// role.
func TestSyncIsNoMoreThanItsPermissions(t *testing.T) {
	p := policytest.ParseDraft(t, base)
	home, away := desired(t, base, account), desired(t, base, second)
	limit := policy.SyncPermissions(p, issuer, account)
	limit.Statement = append(limit.Statement, policy.Statement{
		Sid: "Accounts", Effect: "Allow", Action: policy.Values{"sts:AssumeRole", "sts:TagSession"},
		Resource: policy.Values{away.Sync.ARN.String()},
	})
	if !policy.Equal(home.Sync.Permissions, limit) {
		t.Errorf("home: %s\nwant %s", home.Sync.Permissions, limit)
	}
	if want := policy.SyncPermissions(p, issuer, second); !policy.Equal(away.Sync.Permissions, want) {
		t.Errorf("away: %s\nwant %s", away.Sync.Permissions, want)
	}
	want := policy.TrustDocument(home.Provider, issuer, "sts.amazonaws.com", []policy.Subject{self})
	want.Statement[0].Sid = "Token"
	if !policy.Equal(home.Sync.Trust, want) {
		t.Errorf("home: %s\nwant %s", home.Sync.Trust, want)
	}
	for _, s := range away.Sync.Trust.Statement {
		if s.Effect != "Allow" || !slices.Equal(s.Action, policy.Values{"sts:AssumeRole", "sts:TagSession"}) || len(*s.Principal) != 1 ||
			!slices.Equal((*s.Principal)["AWS"], policy.Values{home.Sync.ARN.String()}) {
			t.Errorf("away: %s, want sync's role at home alone", away.Sync.Trust)
		}
	}
	for _, c := range []bootstrap.Central{home, away} {
		if want := policy.BoundaryDocument(p, c.Account); !policy.Equal(c.Bound, want) {
			t.Errorf("%s: boundary %s, want %s", c.Account, c.Bound, want)
		}
		// Sync may not change its own role.
		for _, s := range c.Sync.Permissions.Statement {
			for _, resource := range s.Resource {
				prefix, _, _ := strings.Cut(resource, "*")
				if s.Effect == "Allow" && strings.HasPrefix(resource, "arn:aws:iam::") && strings.HasPrefix(c.Sync.ARN.String(), prefix) &&
					s.Sid != "ReadRoles" {
					t.Errorf("%s: statement %s reaches sync's own role by %s", c.Account, s.Sid, resource)
				}
			}
		}
	}
}

func TestHome(t *testing.T) {
	listed := strings.Replace(
		base,
		`accounts: [`,
		`accounts: [{id: "111122223333", syncRole: "arn:aws:iam::111122223333:role/sync-here"}, `,
		1,
	)
	unlisted := strings.Replace(base, "  accounts: [", "  accounts: []\n#", 1)
	for name, c := range map[string]struct{ text, want, problem string }{
		"the one that is not listed": {base, account, ""},
		"all are listed":             {listed, account, ""},
		"none is listed":             {unlisted, "", "the accounts 111122223333, 444455556666 have no role in the policy"},
		"none is managed":            {strings.Replace(base, "trust:", "trust:\n  manage: none", 1), "", ""},
	} {
		home, err := bootstrap.Home(policytest.ParseDraft(t, c.text))
		if home != c.want || (err == nil) != (c.problem == "") || (err != nil && !strings.Contains(err.Error(), c.problem)) {
			t.Errorf("%s: %q, %v; want %q, %q", name, home, err, c.want, c.problem)
		}
	}
	// This is the requested home. The token gets the listed role.
	c := desired(t, listed, second, func(in *bootstrap.Input) { in.Home = second })
	if c.Sync.ARN.String() != "arn:aws:iam::444455556666:role/team/sync-of-dev" ||
		(*c.Sync.Trust.Statement[0].Principal)["Federated"] == nil {
		t.Errorf("%s is trusted by %s", c.Sync.ARN, c.Sync.Trust)
	}
	long := desired(t, strings.Replace(base, "name: dev", "name: "+strings.Repeat("long-", 12)+"x", 1), account)
	if name := long.Sync.ARN.RoleName(); len(name) > 64 || !strings.HasPrefix(name, "ampbridge-sync.long-") {
		t.Errorf("role name %s has %d characters", name, len(name))
	}
}

func TestMistakes(t *testing.T) {
	twice := strings.Replace(base, "ws-0002", "ws-new", 1)
	for name, c := range map[string]struct {
		text   string
		change func(*bootstrap.Input)
		want   string
	}{
		"the same new workspace": {strings.Replace(twice, "eu-central-1", "eu-west-1", 1), nil, "number them, as in ws-new-1"},
		"an alias of nobody": {base, func(in *bootstrap.Input) { in.Aliases = map[string]string{"centrl": "x"} }, "the policy has " +
			"no such destination"},
		"an alias of an old one": {base, func(in *bootstrap.Input) { in.Aliases = map[string]string{"backup": "x"} }, "with a new workspace"},
		"no alias": {base, func(in *bootstrap.Input) { in.Aliases = map[string]string{"central": ""} },
			"write 1 to 100 characters"},
		"our tags":             {base, func(in *bootstrap.Input) { in.Tags = map[string]string{plan.TagOwner: "x"} }, "are reserved"},
		"AWS's tags":           {base, func(in *bootstrap.Input) { in.Tags = map[string]string{"AWS:x": "x"} }, "are reserved"},
		"a tag IAM refuses":    {base, func(in *bootstrap.Input) { in.Tags = map[string]string{"team": "$(touch x)"} }, "IAM accepts letters"},
		"a tag without a name": {base, func(in *bootstrap.Input) { in.Tags = map[string]string{"": "x"} }, "IAM accepts letters"},
		"a tag too long": {base, func(in *bootstrap.Input) { in.Tags = map[string]string{"a": strings.Repeat("x", 257)} },
			"IAM accepts letters"},
		"a home without work": {base, func(in *bootstrap.Input) { in.Home = "999999999999" }, "it cannot begin there"},
	} {
		in := bootstrap.Input{Policy: policytest.ParseDraft(t, c.text), Issuer: issuer, Account: account, Sync: self}
		if c.change != nil {
			c.change(&in)
		}
		if _, err := bootstrap.Desired(in); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// Each row is a change by hand in an account that is in sync.
func TestMake(t *testing.T) {
	fresh, c := desired(t, base, account), desired(t, strings.Replace(base, "ws-new", "ws-0001", 1), account)
	well := func() bootstrap.Found {
		return bootstrap.Found{
			Workspaces: []bootstrap.FoundWorkspace{{ARN: c.Workspaces[0].ARN, Alias: "central"}, {ARN: c.Workspaces[1].ARN}},
			Provider:   &plan.Provider{Audiences: c.Audiences, Tags: c.Tags},
			Boundary:   &plan.ManagedPolicy{Document: c.Bound.String(), Tags: c.Tags},
			Role:       &plan.Role{ARN: c.Sync.ARN, Trust: c.Sync.Trust.String(), Permissions: c.Sync.Permissions.String(), Tags: c.Tags},
		}
	}
	others := map[string]string{plan.TagOwner: "another", plan.TagCluster: "prod"}
	shared := c.Bound
	shared.Statement = append(
		slices.Clone(shared.Statement),
		policy.Statement{
			Effect:   "Allow",
			Action:   policy.Values{"aps:RemoteWrite"},
			Resource: policy.Values{"arn:aws:aps:eu-west-1:111122223333:workspace/ws-0009"},
		},
	)
	everything := `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}`
	for _, row := range []struct {
		name    string
		fresh   bool // the policy names a workspace that is yet to be made
		change  func(*bootstrap.Found)
		calls   string
		refused string
		noted   string
	}{
		{name: "all is well", change: func(*bootstrap.Found) {}},
		{name: "nothing is there", fresh: true, change: func(f *bootstrap.Found) { *f = bootstrap.Found{Workspaces: f.Workspaces[1:]} },
			calls: "CreateWorkspace CreateOpenIDConnectProvider AddClientIDToOpenIDConnectProvider CreatePolicy CreateRole PutRolePolicy"},
		{name: "made before", fresh: true, change: func(f *bootstrap.Found) {
			f.Workspaces[0] = bootstrap.FoundWorkspace{ARN: workspace(t, "ws-0007"), Alias: "central", Tags: fresh.Workspaces[0].Tags}
			f.Boundary.Document = fresh.Bound.String()
		}, noted: "was created before for destination central"},
		{name: "a namesake", fresh: true, change: func(f *bootstrap.Found) {
			f.Workspaces[0] = bootstrap.FoundWorkspace{ARN: workspace(t, "ws-0007"), Alias: "central", Tags: others}
			f.Boundary.Document = fresh.Bound.String()
		}, refused: `there is already a workspace with the alias "central", arn:aws:aps:eu-west-1:111122223333:workspace/ws-0007`},
		{name: "a workspace is gone", change: func(f *bootstrap.Found) { f.Workspaces = f.Workspaces[:1] },
			refused: "there is no such workspace"},
		{name: "an audience is missing", change: func(f *bootstrap.Found) { f.Provider.Audiences = f.Provider.Audiences[:1] },
			calls: "AddClientIDToOpenIDConnectProvider"},
		{name: "somebody's provider", change: func(f *bootstrap.Found) { f.Provider.Tags = nil }, noted: "was not created by ampbridge: " +
			"used as it is"},
		{name: "somebody's provider without the audience", change: func(f *bootstrap.Found) { f.Provider = &plan.Provider{} },
			refused: "does not accept the audience"},
		{name: "another cluster's provider", change: func(f *bootstrap.Found) { f.Provider.Tags = others }, refused: `belongs to cluster "prod"`},
		{name: "our boundary, wider", change: func(f *bootstrap.Found) { f.Boundary.Document = everything }, calls: "CreatePolicyVersion"},
		{name: "a shared boundary", change: func(f *bootstrap.Found) {
			f.Boundary = &plan.ManagedPolicy{Document: shared.String(), Tags: others}
		}, noted: "allows what its roles need: used as it is"},
		{name: "somebody's boundary, too narrow", change: func(f *bootstrap.Found) {
			f.Boundary = &plan.ManagedPolicy{Document: policy.Document{Version: c.Bound.Version,
				Statement: shared.Statement[len(shared.Statement)-1:]}.String()}
		}, refused: "add these statements to it"},
		{name: "somebody's boundary, bounding nothing",
			change: func(f *bootstrap.Found) { f.Boundary = &plan.ManagedPolicy{Document: everything} }, refused: "was not created for this " +
				"cluster"},
		{name: "trust was widened", change: func(f *bootstrap.Found) {
			f.Role.Trust = strings.Replace(f.Role.Trust, "StringEquals", "StringLike", 1)
		}, calls: "UpdateAssumeRolePolicy"},
		{name: "permissions were widened", change: func(f *bootstrap.Found) { f.Role.Permissions = everything }, calls: "PutRolePolicy"},
		{name: "cut off before the permissions", change: func(f *bootstrap.Found) { f.Role.Permissions = "" }, calls: "PutRolePolicy"},
		{name: "somebody's role", change: func(f *bootstrap.Found) { f.Role.Tags = nil }, refused: "which bootstrap did not create for " +
			"this cluster"},
		{name: "our role on another path", change: func(f *bootstrap.Found) {
			f.Role.ARN.Resource = "role/elsewhere/" +
				c.Sync.ARN.RoleName()
		}, refused: "the name is taken by"},
	} {
		found := well()
		row.change(&found)
		central := c
		if row.fresh {
			central = fresh
		}
		p := bootstrap.Compute(central, found)
		var calls []string
		for _, change := range p.Changes {
			calls = append(calls, string(change.Call))
		}
		text := func(findings []plan.Finding) (all string) {
			for _, f := range findings {
				all += f.Message
			}
			return all
		}
		refused, noted := text(p.Refusals), text(p.Notes)
		if strings.Join(calls, " ") != row.calls || (refused == "") != (row.refused == "") || !strings.Contains(refused, row.refused) ||
			(noted == "") != (row.noted == "") || !strings.Contains(noted, row.noted) {
			t.Errorf("%s:\n%s", row.name, p)
		}
	}
}

func workspace(t *testing.T, id string) (w policy.Workspace) {
	t.Helper()
	testkit.Must(t, w.UnmarshalText([]byte("arn:aws:aps:eu-west-1:111122223333:workspace/"+id)))
	return w
}

// Aliases and tags arrive unchanged, and the shell runs no part of them. bash runs the script with
// a recorder instead of the AWS CLI.
func TestHostileWordsAreText(t *testing.T) {
	for _, hostile := range []string{
		`'; touch "$STAINED"; echo '`, `$(touch "$STAINED")`, "`touch \"$STAINED\"`", "two\nlines; touch $STAINED", `back\slash`, `"quoted"`,
		"file:///etc/passwd", "${HOME}", "--alias", "# no comment", "*", "ünïcode",
	} {
		c := desired(t, base, account, func(in *bootstrap.Input) {
			in.Aliases = map[string]string{"central": hostile}
		})
		stained := t.TempDir() + "/stained"
		recorder := `aws() { printf '%s\0' "$@" >&3; case "$1 $2" in
"sts get-caller-identity") echo 111122223333 ;;
"amp list-workspaces") ;;
"iam get-"*) echo "An error occurred (NoSuchEntity)" >&2; return 254 ;;
*) echo arn:aws:aps:eu-west-1:111122223333:workspace/ws-made ;;
esac; }` + "\n"
		record, err := os.CreateTemp(t.TempDir(), "record")
		testkit.Must(t, err)
		cmd := exec.CommandContext(t.Context(), "bash", "-c", recorder+bootstrap.Script(c, false))
		cmd.Env, cmd.ExtraFiles = append(os.Environ(), "STAINED="+stained), []*os.File{record}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", hostile, err, out)
		}
		if _, err := os.Stat(stained); !os.IsNotExist(err) {
			t.Errorf("%q was run", hostile)
		}
		testkit.Must(t, record.Close())
		arguments := strings.Split(testkit.ReadFile(t, record.Name()), "\x00")
		if !slices.ContainsFunc(arguments, func(a string) bool { return strings.Contains(a, `"alias":`) && alias(t, a) == hostile }) {
			t.Errorf("%q did not arrive as the alias: %q", hostile, arguments)
		}
		// The workspace's ARN is in the boundary by the time it is made.
		if !slices.ContainsFunc(arguments, func(a string) bool {
			d, err := policy.ParseDocument(a)
			return err == nil && len(d.Statement) == 1 &&
				slices.Contains(d.Statement[0].Resource, "arn:aws:aps:eu-west-1:111122223333:workspace/ws-made")
		}) {
			t.Errorf("no document names the workspace: %q", arguments)
		}
	}
}

func TestScriptStopsInAnotherAccount(t *testing.T) {
	script := `aws() { echo "$@" >&2; echo 999999999999; }` + "\n" + bootstrap.Script(desired(t, base, account), false)
	var errs strings.Builder
	cmd := exec.CommandContext(t.Context(), "bash", "-c", script)
	cmd.Stderr = &errs
	if err := cmd.Run(); err == nil || strings.Contains(errs.String(), "create") {
		t.Errorf("%v: it went on: %s", err, errs.String())
	}
}

func alias(t *testing.T, text string) string {
	t.Helper()
	var in struct {
		Alias string `json:"alias"`
	}
	if err := json.Unmarshal([]byte(text), &in); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return in.Alias
}
