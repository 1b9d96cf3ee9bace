package check

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ampbridge/ampbridge/policy"
)

// A check comes after the checks that it depends on, so that one run in this
// order finds every cause first.
func TestChecksDependOnEarlierOnes(t *testing.T) {
	for i, c := range All {
		for _, need := range c.Needs {
			if at := position(need); at >= i {
				t.Errorf("%s depends on %s, which is not before it", c.ID, need)
			}
		}
		if !strings.HasSuffix(c.Question, "?") {
			t.Errorf("the question of %s is %q", c.ID, c.Question)
		}
	}
}

func TestBlocked(t *testing.T) {
	central := About{Subject: "system:serviceaccount:a:b", Destination: "central", Account: "111122223333"}
	backup := About{Subject: central.Subject, Destination: "backup", Account: "444455556666"}
	for _, c := range []struct {
		name      string
		before    []Finding
		id        ID
		about     About
		blockedBy ID // empty: it runs
	}{
		{"nothing before", nil, Session, central, ""},
		{"its dependency passed", []Finding{Passed(TrustDocument, central, "")}, Session, central, ""},
		{"its dependency failed", []Finding{Failed(TrustDocument, central, Fix{}, "")}, Session, central, TrustDocument},
		{"its dependency warns", []Finding{Warned(TrustDocument, central, Fix{}, "")}, Session, central, ""},
		{"its dependency was skipped", []Finding{Skipped(TrustDocument, central, "no credentials")}, Session, central, ""},
		{"that of another destination failed", []Finding{Failed(TrustDocument, backup, Fix{}, "")}, Session, central, ""},
		{"that of the whole account failed", []Finding{Failed(OIDCProvider, About{Account: central.Account}, Fix{}, "")}, Session, central,
			OIDCProvider},
		{"that of another account failed", []Finding{Failed(OIDCProvider, About{Account: backup.Account}, Fix{}, "")}, Session, central, ""},
		{"that of everything failed", []Finding{Failed(IssuerMatches, About{}, Fix{}, "")}, TrustDocument, central, IssuerMatches},
		{"a dependency of its dependency failed", []Finding{Failed(RoleExists, central, Fix{}, ""),
			{ID: Session, Status: Skip, About: central, BlockedBy: RoleExists}}, Write, central, RoleExists},
		{"something else failed", []Finding{Failed(Endpoints, About{}, Fix{}, "")}, Session, central, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var r Runner
			r.Add(c.before...)
			if got := r.Blocked(c.id, c.about); got != (c.blockedBy != "") {
				t.Fatalf("blocked: %v", got)
			}
			if c.blockedBy == "" {
				return
			}
			want := Finding{
				ID:        c.id,
				Status:    Skip,
				About:     c.about,
				BlockedBy: c.blockedBy,
				Message:   "depends on " + string(c.blockedBy) + ", which failed",
			}
			if diff := cmp.Diff(want, r.findings[len(r.findings)-1]); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestSummary(t *testing.T) {
	passed, warned := Passed(Policy, About{}, ""), Warned(Pods, About{}, Fix{}, "")
	a, b := About{Destination: "a"}, About{Destination: "b"}
	for _, c := range []struct {
		name     string
		findings []Finding
		want     string
		healthy  bool
	}{
		{"all passed", []Finding{passed, Passed(Pods, About{}, "")}, "2 checks passed", true},
		{"one check of two objects", []Finding{Passed(RoleExists, a, ""), Passed(RoleExists, b, "")}, "1 check passed", true},
		{"one skipped", []Finding{passed, Skipped(Pods, About{}, "")}, "1 check passed, 1 skipped", true},
		{"one excluded", []Finding{passed, Excluded(Write, About{}, "")}, "1 check passed", true},
		{"one skipped, one excluded", []Finding{passed, Skipped(Pods, About{}, ""), Excluded(Write, About{}, "")}, "1 check passed, 1 skipped",
			true},
		{"one warning", []Finding{warned}, "0 checks passed, 1 warning", true},
		{"two warnings", []Finding{passed, warned, Warned(Flow, About{}, Fix{}, "")}, "1 check passed, 2 warnings", true},
		{"a check with a warning is also skipped", []Finding{Warned(Flow, a, Fix{}, ""), Skipped(Flow, b, "")}, "0 checks passed, 1 skipped",
			true},
		{"nothing ran", []Finding{Skipped(Policy, About{}, "")}, "0 checks passed, 1 skipped", false},
		{"one failed twice", []Finding{Failed(TrustDocument, a, Fix{}, ""), Failed(TrustDocument, b, Fix{}, "")}, "0 checks passed, 1 " +
			"failed (trust)", false},
		{"two failed", []Finding{Failed(TrustDocument, About{}, Fix{}, ""), Failed(Policy, About{}, Fix{}, ""), warned,
			Skipped(Flow, About{}, "")},
			"0 checks passed, 2 failed (policy, trust), 1 warning, 1 skipped", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var r Runner
			r.Add(c.findings...)
			report := r.Report()
			if got := report.Summary(); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
			if report.Healthy != c.healthy {
				t.Errorf("healthy: %v", report.Healthy)
			}
		})
	}
}

func TestUnchecked(t *testing.T) {
	a, b := About{Pod: "monitoring/a"}, About{Pod: "monitoring/b"}
	for _, c := range []struct {
		name     string
		findings []Finding
		want     []ID
	}{
		{"nothing", nil, nil},
		{"all passed", []Finding{Passed(Policy, About{}, ""), Warned(Pods, a, Fix{}, "")}, nil},
		{"no permission", []Finding{Passed(Flow, a, ""), Skipped(Flow, b, "no right to read it")}, []ID{Flow}},
		{"excluded", []Finding{Excluded(Write, About{}, "--no-write")}, nil},
		{"blocked by a failed one", []Finding{Failed(Session, About{}, Fix{}, ""), {ID: Sidecar, Status: Skip, About: a, BlockedBy: Session}},
			[]ID{Sidecar}},
		{"each once, in order", []Finding{Skipped(Flow, a, ""), Skipped(Flow, b, ""), Skipped(Account, About{}, "")}, []ID{Account, Flow}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var r Runner
			r.Add(c.findings...)
			if diff := cmp.Diff(c.want, r.Report().Unchecked()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestMissing(t *testing.T) {
	noCluster := []Finding{Skipped(Kubernetes, About{}, ""), Passed(Policy, About{}, ""), Skipped(Session, About{}, ""),
		Passed(Query, About{}, "")}
	noAWS := []Finding{Passed(Kubernetes, About{}, ""), Passed(Session, About{}, ""), Skipped(Account, About{}, ""),
		Excluded(Write, About{}, "")}
	neither := []Finding{Skipped(Kubernetes, About{}, ""), Skipped(Session, About{}, ""), Skipped(Account, About{}, "")}
	for _, c := range []struct {
		name     string
		findings []Finding
		required Scope
		want     []ID
	}{
		{"no flag", neither, "", []ID{Kubernetes, Account, Session}},
		{"no cluster, all", noCluster, ScopeAll, []ID{Kubernetes, Session}},
		{"no cluster, cluster", noCluster, ScopeCluster, []ID{Kubernetes}},
		{"no cluster, aws", noCluster, ScopeAWS, nil},
		{"no AWS, all", noAWS, ScopeAll, []ID{Account}},
		{"no AWS, cluster", noAWS, ScopeCluster, nil},
		{"no AWS, aws", noAWS, ScopeAWS, []ID{Account}},
		{"neither, all", neither, ScopeAll, []ID{Kubernetes, Account, Session}},
		{"neither, cluster", neither, ScopeCluster, []ID{Kubernetes}},
		{"neither, aws", neither, ScopeAWS, []ID{Account}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var r Runner
			r.Head.Require = c.required
			r.Add(c.findings...)
			report := r.Report()
			missing, optional := report.Missing(), report.Optional()
			if !slices.Equal(missing, c.want) || len(missing)+len(optional) != len(report.Unchecked()) {
				t.Errorf("%v, and not required %v; want %v", missing, optional, c.want)
			}
			if report.Counts().Skipped != len(c.want) {
				t.Errorf("%s", report.Summary())
			}
		})
	}
}

// A check without a finding becomes a skipped check.
func TestComplete(t *testing.T) {
	var r Runner
	r.Add(Passed(Kubernetes, About{}, ""), Failed(TrustDocument, About{}, Fix{}, ""))
	r.Complete("the service accounts cannot be listed")
	report := r.Report()
	if len(report.Findings) != len(All) || len(report.Missing()) != len(All)-2 {
		t.Errorf("%d findings, %d missing", len(report.Findings), len(report.Missing()))
	}
	if f := report.Of(Session)[0]; f.BlockedBy != TrustDocument {
		t.Errorf("%+v", f)
	}
}

// A later check can prove a skipped check, but not a blocked or a failed one.
func TestProve(t *testing.T) {
	var r Runner
	r.Add(Skipped(Certificate, About{}, "the Secret cannot be read"), Skipped(Endpoints, About{}, "no rights"),
		Finding{ID: Certificate, Status: Skip, BlockedBy: Registration}, Failed(Certificate, About{}, Fix{}, "it has expired"))
	r.Prove(Certificate, About{}, "the dry run proves it")
	var statuses []Status
	for _, f := range r.findings {
		statuses = append(statuses, f.Status)
	}
	if diff := cmp.Diff([]Status{Pass, Skip, Skip, Fail}, statuses); diff != "" {
		t.Error(diff)
	}
	one, two := About{Pod: "monitoring/one"}, About{Pod: "monitoring/two"}
	r.Add(Skipped(Sidecar, one, "on the host's network"), Skipped(Sidecar, two, "on the host's network"))
	r.Prove(Sidecar, two, "samples flow")
	if found := r.Report().Of(Sidecar); found[0].Status != Skip || found[1].Status != Pass {
		t.Errorf("%+v", found)
	}
}

func TestCommand(t *testing.T) {
	for _, c := range []struct {
		command Command
		want    string
	}{
		{Command{"kubectl", "label", "namespace", "a", "b=c"}, "kubectl label namespace a b=c"},
		{Command{"aws", `{"a": 'b'}`}, `aws '{"a": '\''b'\''}'`},
		{Command{"rm", "", "$(reboot)", "a;b"}, `rm '' '$(reboot)' 'a;b'`},
	} {
		if got := c.command.String(); got != c.want {
			t.Errorf("%s, want %s", got, c.want)
		}
	}
}

// A session of this machine does not prove that a pod gets one, if its network or its name decides.
func TestLiftOfConditionsOnTheCaller(t *testing.T) {
	for condition, want := range map[string]Status{
		`"StringEquals":{"aws:PrincipalOrgID":"o-1"}`:                                                          Pass,
		`"IpAddress":{"aws:SourceIp":"192.0.2.0/24"}`:                                                          Warn,
		`"StringEquals":{"AWS:sourceVpce":"vpce-1"}`:                                                           Warn,
		`"StringEquals":{"aws:PrincipalOrgID":"o-1"},"StringLikeIfExists":{"aws:userid":"*:dev-monitoring-*"}`: Warn,
	} {
		var r Runner
		r.Add(Permission(rolePolicies(t, []string{`{"Statement":[{"Action":"aps:*","Effect":"Allow","Resource":"*","Condition":{` +
			condition + `}}]}`}), "", destination, NewFix("sync")))
		if _, found := r.Doubt(Write, About{}); !found {
			t.Errorf("%s is no doubt about a write", condition)
		}
		r.Add(Passed(Write, About{}, ""))
		if f := r.findings[0]; f.Status != want {
			t.Errorf("%s: %s: %s", condition, f.Status, f.Message)
		}
	}
}

// A write does not prove the right to query.
func TestLiftOfQueries(t *testing.T) {
	both := destination
	both.Access = []policy.Access{policy.AccessWrite, policy.AccessQuery}
	allow := func(actions, condition string) string {
		return `{"Action":` + actions + `,"Effect":"Allow","Resource":"*","Condition":{` + condition + `}}`
	}
	const org = `"StringEquals":{"aws:PrincipalOrgID":"o-1"}`
	for document, want := range map[string]ID{
		`{"Statement":[` + allow(`"aps:RemoteWrite"`, "") + "," + allow(`"aps:*"`, org) + `]}`:                     Read,
		`{"Statement":[` + allow(`["aps:Query*","aps:Get*"]`, "") + "," + allow(`["aps:RemoteWrite"]`, org) + `]}`: Write,
	} {
		if f := Permission(rolePolicies(t, []string{document}), "", both, NewFix("sync")); f.Proof != want {
			t.Errorf("%s is proven by %q: %s", document, f.Proof, f.Message)
		}
	}
}

// If a check passes, the warnings that it proves become passes. No other finding changes.
func TestLift(t *testing.T) {
	one, other := About{Subject: "system:serviceaccount:m:one", Destination: "central"}, About{Subject: "system:serviceaccount:m:other"}
	var r Runner
	r.Add(
		Warned(TrustDocument, one, NewFix("check it"), "conditions decide").until(Session),
		Skipped(Write, one, "no session").until(Flow),
		Warned(TrustDocument, other, NewFix("check it"), "conditions decide").until(Session),
		Failed(Permissions, one, NewFix("fix it"), "denied").until(Session),
	)
	if doubt, found := r.Doubt(Session, one); !found || doubt.ID != TrustDocument {
		t.Errorf("%+v", doubt)
	}
	r.Add(Passed(Session, one, ""))
	var got []Status
	for _, f := range r.findings[:4] {
		got = append(got, f.Status)
	}
	if diff := cmp.Diff([]Status{Pass, Skip, Warn, Fail}, got); diff != "" {
		t.Error(diff)
	}
	if f := r.findings[0]; f.Fix != nil || f.Message != "conditions decide; session passes, which proves it" {
		t.Errorf("%+v", f)
	}
	r.Add(Failed(Flow, one, NewFix("fix it"), ""))
	if r.findings[1].Status != Skip {
		t.Error("a failed check proves something")
	}
}
