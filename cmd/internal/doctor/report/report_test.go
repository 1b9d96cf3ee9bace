package report

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/policy/check"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// pages is for test/browser, which opens the pages in a browser.
var pages = flag.String("pages", "", "write the pages of several reports to this `DIR`")

// reports are those that test/browser opens, with the status of every check.
var reports = map[string]check.Report{
	"sample": sample(),
	"pass":   each(func(id check.ID, a check.About) check.Finding { return check.Passed(id, a, "%s", longARN) }),
	"warn": each(func(id check.ID, a check.About) check.Finding {
		return check.Warned(id, a, check.NewFix("do this later"), "%s", longARN)
	}),
	"skip": each(func(id check.ID, a check.About) check.Finding { return check.Skipped(id, a, "no credentials") }),
	// Long words are hard to break, and markup must stay text.
	"fail": each(func(id check.ID, a check.About) check.Finding {
		return check.Failed(id, a, check.NewFix("do this <b>at once</b>", check.Command{
			"aws", "iam", "update-assume-role-policy", "--policy-document", `{"Principal":"` + longARN + `"}`,
		}), "%s", longARN).Comparing("ARN", longARN, strings.TrimSuffix(longARN, "/"))
	}),
}

var longARN = "arn:aws:iam::111122223333:oidc-provider/westeurope.oic.prod-aks.azure.com/" +
	strings.Repeat("0123456789abcdef", 8) + "/"

// object returns the object of a finding about a service account and a destination.
func object(account string) check.About {
	return check.About{Subject: "system:serviceaccount:monitoring:" + account, Destination: "central",
		Account: "111122223333"}
}

// each returns a report with findings about many service accounts for every check.
func each(finding func(check.ID, check.About) check.Finding) check.Report {
	r := check.Runner{Cluster: "dev-aks", Head: head()}
	for _, c := range check.All {
		for i := range few + 1 {
			r.Add(finding(c.ID, object(fmt.Sprintf("kube-prometheus-stack-prometheus-%d", i))))
		}
	}
	return r.Report()
}

func TestFormats(t *testing.T) {
	for extension, write := range map[string]func(io.Writer, check.Report) error{"txt": Printer{}.Text, "json": JSON,
		"html": HTML} {
		t.Run(extension, func(t *testing.T) {
			var got bytes.Buffer
			testkit.Must(t, write(&got, sample()))
			text := got.String()
			if extension == "html" {
				// The rest is that of every page, and cmd/internal/page tests it.
				_, text, _ = strings.Cut(text, "<main>\n")
			}
			testkit.Golden(t, filepath.Join("testdata", "sample."+extension), text)
		})
	}
}

func TestPages(t *testing.T) {
	dir := *pages
	if dir == "" {
		dir = t.TempDir()
	}
	for name, r := range reports {
		var got bytes.Buffer
		testkit.Must(t, HTML(&got, r))
		if strings.Contains(got.String(), "<b>") || strings.Contains(got.String(), "<script") {
			t.Errorf("%s: text of a finding became markup, or there is a script", name)
		}
		for _, c := range check.All {
			status := r.Status(c.ID)
			if len(r.Of(c.ID)) == 0 {
				continue
			}
			want := fmt.Sprintf(`data-check="%s" data-status="%s"><details%s>`, c.ID, status,
				map[check.Status]string{check.Fail: " open"}[status])
			if !strings.Contains(got.String(), want) {
				t.Errorf("%s: the page lacks %s", name, want)
			}
		}
		testkit.WriteFile(t, filepath.Join(dir, name+".html"), got.String())
	}
}

func TestJSONOfNothingHasEmptyLists(t *testing.T) {
	var got bytes.Buffer
	testkit.Must(t, JSON(&got, check.Report{}))
	for _, part := range []string{`"failed": []`, `"notChecked": []`, `"findings": []`} {
		if !strings.Contains(got.String(), part) {
			t.Errorf("no %s in\n%s", part, got.String())
		}
	}
}

func TestEveryCheckHasAStepOfTheDiagram(t *testing.T) {
	for _, c := range check.All {
		n := 0
		for _, s := range steps {
			if slices.Contains(s.checks, c.ID) {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%s is in %d steps of the diagram, want 1", c.ID, n)
		}
	}
}

// The head of a report is in all formats, and what is not known is in none.
func TestHead(t *testing.T) {
	r := sample()
	for name, write := range map[string]func(io.Writer, check.Report) error{"text": Printer{}.Text, "JSON": JSON,
		"page": HTML} {
		var got bytes.Buffer
		testkit.Must(t, write(&got, r))
		v := r.Head.Versions
		for _, part := range []string{r.Cluster, r.Head.Context, r.Head.PolicyRevision, v.Ampbridge, v.Kubernetes,
			"ampbridge:v0.9.0",
			"prometheus:v3.1.0", "prometheus:v2.55.1", "2026-11-28", "3.2"} {
			if !strings.Contains(got.String(), part) {
				t.Errorf("the %s lacks %s", name, part)
			}
		}
	}
	if rows := headRows(check.Report{}); rows != nil {
		t.Errorf("the head of nothing: %v", rows)
	}
}

func TestVerdict(t *testing.T) {
	fix := check.NewFix("fix it")
	pass, warn := check.Passed(check.Policy, check.About{}, ""), check.Warned(check.Certificate, check.About{}, fix, "")
	skip := check.Skipped(check.Flow, check.About{}, "no Prometheus pod is running")
	fail := check.Failed(check.TrustDocument, check.About{}, fix, "")
	earlier := check.Failed(check.Namespace, check.About{}, check.NewFix("label it"), "")
	withFix := func(f check.Finding, fix check.Fix) check.Finding { f.Fix = &fix; return f }
	down := check.Failed(check.Kubernetes, check.About{}, fix, "the cluster did not answer")
	blocked := check.BlockedBy(check.Policy, check.About{}, check.Kubernetes)
	reached := check.Passed(check.Kubernetes, check.About{}, "")
	noCluster := withFix(check.Skipped(check.Kubernetes, check.About{}, "no kubeconfig names a cluster"), fix)
	noAWS := withFix(check.Skipped(check.Account, check.About{Account: "111122223333"}, "no credentials"), check.NewFix("log in"))
	role := check.Skipped(check.RoleExists, check.About{}, "the account cannot be read")
	unread := check.Skipped(check.Policy, check.About{}, "the policy could not be read: no rights")
	for _, c := range []struct {
		want     string
		findings []check.Finding
	}{
		{"1 check passed", []check.Finding{pass}},
		{"1 check passed; 1 warning (certificate). First fix: fix it", []check.Finding{pass, warn}},
		{"No check failed, but 1 was skipped: flow; 1 check passed, 1 warning (certificate). First reason: flow: no " +
			"Prometheus pod is running",
			[]check.Finding{pass, warn, skip}},
		{"1 check failed: trust; 1 passed, 1 warning (certificate), 1 skipped. First fix: fix it", []check.Finding{pass,
			warn, skip, fail}},
		{"Nothing could be checked: the cluster did not answer. First fix: fix it", []check.Finding{down, blocked}},
		{"Nothing could be checked: no kubeconfig names a cluster. First fix: fix it", []check.Finding{noCluster, skip}},
		{"1 check failed: kubernetes; 1 passed, 1 skipped. First fix: fix it", []check.Finding{down, pass, skip}},
		{"No check failed, but the cluster was not checked (no kubeconfig names a cluster); 1 check passed. First fix: fix it",
			[]check.Finding{noCluster, pass, skip}},
		{"No check failed, but the cluster was not checked (no kubeconfig names a cluster), and AWS was not checked (no " +
			"credentials); 1 check passed. First fix: fix it", []check.Finding{noCluster, pass, noAWS, skip}},
		{"No check failed, but AWS was not checked (no credentials), and 1 was skipped: flow; 2 checks passed. First fix: log in",
			[]check.Finding{reached, pass, noAWS, role, skip}},
		{"No check failed, but 1 was skipped: account; 1 check passed. First fix: log in",
			[]check.Finding{pass, noAWS, check.Passed(check.Account, check.About{Account: "444455556666"}, "")}},
		{"No check failed, but 2 were skipped: the policy could not be read: no rights; 1 check passed. First reason: policy: the " +
			"policy could not be read: no rights", []check.Finding{reached, unread, skip}},
		{"2 checks failed: namespace, trust; 0 passed. First fix: label it", []check.Finding{fail, earlier}},
		{"Nothing was checked", nil},
	} {
		var r check.Runner
		r.Add(c.findings...)
		got := text(t, r.Report())
		if first, _, _ := strings.Cut(got, "\n"); !strings.HasSuffix(first, " "+c.want) {
			t.Errorf("the first line is\n%s, want\n%s", first, c.want)
		}
	}
}

// With --require the verdict leaves out the side that was not asked for.
func TestVerdictOfOneSide(t *testing.T) {
	pass, reached := check.Passed(check.Policy, check.About{}, ""), check.Passed(check.Kubernetes, check.About{}, "")
	noCluster := check.Skipped(check.Kubernetes, check.About{}, "no kubeconfig")
	noAWS, trust := check.Skipped(check.Account, check.About{}, "no credentials"), check.Skipped(check.TrustDocument, check.About{}, "")
	session, flow := check.Skipped(check.Session, check.About{}, ""), check.Skipped(check.Flow, check.About{}, "no pod is running")
	fail := check.Failed(check.Grant, check.About{}, check.NewFix("grant it"), "")
	for _, c := range []struct {
		require  check.Scope
		status   check.Status
		want     string
		findings []check.Finding
	}{
		{check.ScopeCluster, check.Pass, "2 checks passed; AWS was not checked (--require cluster)",
			[]check.Finding{reached, pass, noAWS, trust, session}},
		{check.ScopeAWS, check.Pass, "1 check passed; the cluster was not checked (--require aws)",
			[]check.Finding{noCluster, pass, session, flow}},
		{check.ScopeCluster, check.Pass, "2 checks passed; 1 was skipped: session (--require cluster)",
			[]check.Finding{reached, pass, session}},
		{check.ScopeCluster, check.Skip, "No check failed, but 1 was skipped: flow; 2 checks passed, AWS was not checked " +
			"(--require cluster). First reason: flow: no pod is running", []check.Finding{reached, pass, noAWS, flow}},
		{check.ScopeCluster, check.Fail, "1 check failed: grant; 2 passed, AWS was not checked (--require cluster). First fix: grant it",
			[]check.Finding{reached, pass, fail, noAWS}},
		{check.ScopeAll, check.Skip, "No check failed, but AWS was not checked (no credentials); 2 checks passed. First reason: " +
			"account: no credentials", []check.Finding{reached, pass, noAWS, trust}},
	} {
		r := check.Runner{Head: check.Head{Require: c.require}}
		r.Add(c.findings...)
		if v := newVerdict(r.Report()); v.status != c.status || v.String() != c.want {
			t.Errorf("--require %s: %s\n%s, want\n%s", c.require, v.status, v, c.want)
		}
	}
}

func text(t *testing.T, r check.Report) string {
	t.Helper()
	var got strings.Builder
	testkit.Must(t, Printer{}.Text(&got, r))
	return got.String()
}

// Results of many service accounts are one line for each outcome, in every status. What
// else differs keeps them apart.
func TestManyResultsAreFolded(t *testing.T) {
	const many = 61
	account := func(i int) check.About { return object(fmt.Sprintf("prometheus-%d", i)) }
	fix := func(a check.About) check.Fix {
		return check.NewFix("fix it", check.Command{"kubectl", "fix", a.Subject})
	}
	for _, c := range []struct {
		name    string
		finding func(int) check.Finding
		want    []string
	}{
		{"passed", func(i int) check.Finding {
			return check.Passed(check.TokenMinted, account(i), "a token of %s, for %d minutes more", account(i).Subject, 9+i%2)
		}, []string{"✓ token            61 service accounts, such as monitoring/prometheus-0 → central: a token of " +
			"system:serviceaccount:monitoring:prometheus-0, for 9 minutes more"}},
		{"passed in two ways", func(i int) check.Finding {
			return check.Passed(check.Sidecar, account(i), "%s", []string{"it has a session",
				"the samples moved to the relay"}[i%2])
		}, []string{
			"✓ sidecar          31 service accounts, such as monitoring/prometheus-0 → central: it has a session",
			"✓ sidecar          30 service accounts, such as monitoring/prometheus-1 → central: the samples moved to the relay",
		}},
		{"failed", func(i int) check.Finding {
			a := account(i)
			return check.Failed(check.TrustDocument, a, fix(a), "its :sub lets in others, and not %s", a.Subject)
		}, []string{
			"✗ trust            61 service accounts, such as monitoring/prometheus-0 → central: its :sub lets in others, " +
				"and not " +
				"system:serviceaccount:monitoring:prometheus-0",
			"                   → fix it",
			"                     $ kubectl fix system:serviceaccount:monitoring:prometheus-0",
		}},
		{"failed for different reasons", func(i int) check.Finding {
			return check.Failed(check.Write, account(i), check.NewFix("fix it"), "AMP answers %d", 403+i%2)
		}, []string{
			"✗ write            31 service accounts, such as monitoring/prometheus-0 → central: AMP answers 403",
			"                   → fix it",
			"✗ write            30 service accounts, such as monitoring/prometheus-1 → central: AMP answers 404",
			"                   → fix it",
		}},
		{"warned about pods", func(i int) check.Finding {
			a := check.About{Subject: "system:serviceaccount:monitoring:prometheus",
				Pod: fmt.Sprintf("monitoring/prometheus-%d", i)}
			return check.Warned(check.Pods, a, check.NewFix("restart it"), "%s was injected by an older policy", a.Pod)
		}, []string{
			"! pods             61 pods, such as monitoring/prometheus → monitoring/prometheus-0: monitoring/prometheus-0 " +
				"was injected by an " +
				"older policy",
			"                   → restart it",
		}},
		{"skipped, with request IDs", func(i int) check.Finding {
			return check.Skipped(check.RoleExists, account(i), "RequestID 00000000-0000-0000-0000-%012d: throttled", i)
		}, []string{"– role             61 service accounts, such as monitoring/prometheus-0 → central: RequestID " +
			"00000000-0000-0000-0000-000000000000: throttled"}},
		{"failed, with numbers of samples", func(i int) check.Finding {
			return check.Failed(check.Flow, account(i), check.NewFix("fix it"), "%d samples are pending, and none was sent "+
				"for %d seconds", i, i)
		}, []string{
			"✗ flow             61 service accounts, such as monitoring/prometheus-0 → central: 0 samples are pending, and " +
				"none was sent for " +
				"0 seconds",
			"                   → fix it",
		}},
		{"failed, each with a role of its own", func(i int) check.Finding {
			return check.Failed(check.RoleExists, account(i), check.NewFix("fix it"), "there is no role "+
				"arn:aws:iam::111122223333:role/r-%x", i)
		}, []string{
			"✗ role             61 service accounts, such as monitoring/prometheus-0 → central: there is no role " +
				"arn:aws:iam::111122223333:role/r-0",
			"                   → fix it",
		}},
		{"of several destinations", func(i int) check.Finding {
			a := account(i / 2)
			a.Destination = []string{"central", "backup"}[i%2]
			return check.Skipped(check.Write, a, "excluded by --no-write")
		}, []string{"– write            61 pairs of 31 service accounts and 2 destinations, such as " +
			"monitoring/prometheus-0 → central: " +
			"excluded by --no-write"}},
		{"all passed, one failed", func(i int) check.Finding {
			if i == 30 {
				return check.Failed(check.Grant, account(i), check.NewFix("grant it"), "no grant covers it")
			}
			return check.Passed(check.Grant, account(i), "it may write to central")
		}, []string{
			"✗ grant            monitoring/prometheus-30 → central: no grant covers it",
			"                   → grant it",
			"✓ grant            60 service accounts, such as monitoring/prometheus-0 → central: it may write to central",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var r check.Runner
			for i := range many {
				r.Add(c.finding(i))
			}
			_, got, _ := strings.Cut(text(t, r.Report()), "\n\n")
			testkit.Equal(t, "the text", strings.Join(c.want, "\n")+"\n", got)
			var page bytes.Buffer
			testkit.Must(t, HTML(&page, r.Report()))
			for i := range many {
				if message := c.finding(i).Message; !strings.Contains(page.String(), message) {
					t.Errorf("the page lacks %s", message)
				}
			}
		})
	}
}

// A few results stay lines of their own, so that each shows its command.
func TestFewResultsAreNotFolded(t *testing.T) {
	var r check.Runner
	for _, name := range []string{"a", "b", "c"} {
		r.Add(check.Failed(check.Namespace, check.About{Subject: "system:serviceaccount:" + name + ":prometheus"},
			check.NewFix("label it", check.Command{"kubectl", "label", "namespace", name}), "%s does not carry the label", name))
	}
	if got := text(t, r.Report()); strings.Count(got, "✗ namespace") != 3 ||
		strings.Count(got, "$ kubectl label namespace") != 3 {
		t.Error(got)
	}
}

// A name is replaced only where it is a word of its own.
func TestTemplateKeepsOtherWords(t *testing.T) {
	a := check.About{Subject: "system:serviceaccount:mon:prom"}
	for message, want := range map[string]string{
		"mon carries the label":                                  "§ carries the label",
		"mon/prom runs no prometheus":                            "§ runs no prometheus",
		"the monitor of mon-2 promtes":                           "the monitor of mon-2 promtes",
		"subject system:serviceaccount:mon:prom, 40 seconds ago": "subject §, § ago",
	} {
		if got := template(check.Failed(check.Grant, a, check.Fix{}, ""), message); got != want {
			t.Errorf("%q: %q, want %q", message, got, want)
		}
	}
}

// The carets stand below what differs, and the escapes of colours do not move them.
func TestComparedValues(t *testing.T) {
	for _, c := range []struct{ name, found, wanted, want string }{
		{"a slash is missing", "https://westeurope.oic.prod-aks.azure.com/1111/66666666-7777-8888-9999-000000000000",
			"https://westeurope.oic.prod-aks.azure.com/1111/66666666-7777-8888-9999-000000000000/", `
found   …-7777-8888-9999-000000000000
wanted  …-7777-8888-9999-000000000000/
                                     ^ "/" is missing`},
		{"a slash too many", "a/", "a", `
found   a/
         ^ "/" is too much
wanted  a`},
		{"another name", "system:serviceaccount:monitoring:grafana", "system:serviceaccount:monitoring:prometheus", `
found   …m:serviceaccount:monitoring:grafana
wanted  …m:serviceaccount:monitoring:prometheus
                                     ^^^^^^^^^^ "grafana" must be "prometheus"`},
		{"two letters", "arn:aws:iam::111122223333:role/a", "arn:aws:iam::111152226333:role/a", `
found   arn:aws:iam::111122223333:role/a
wanted  arn:aws:iam::111152226333:role/a
                         ^   ^`},
		{"a rune that looks the same", "sts.аmazonaws.com", "sts.amazonaws.com", `
found   sts.\u0430mazonaws.com
            ^^^^^^ "\u0430" must be "a"
wanted  sts.amazonaws.com`},
		{"nothing in common", "api://AzureADTokenExchange", "sts.amazonaws.com", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			compared := check.Comparison{Found: c.found, Wanted: c.wanted}
			want := strings.TrimPrefix(c.want, "\n")
			testkit.Equal(t, "the comparison", want, strings.Join(Printer{}.compared(compared), "\n"))
			if got := uncoloured(strings.Join(Printer{Color: true}.compared(compared), "\n")); got != want {
				t.Errorf("without its colours:\n%s", got)
			}
		})
	}
}
