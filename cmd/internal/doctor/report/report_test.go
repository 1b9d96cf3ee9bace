package report

import (
	"bytes"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ampbridge/ampbridge/policy/check"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// reports are written to testdata. test/browser opens the pages in a browser.
var reports = map[string]check.Report{
	"sample": sample(),
	"pass":   each(func(id check.ID) check.Finding { return check.Passed(id, about, "%s", longARN) }),
	"skip":   each(func(id check.ID) check.Finding { return check.Skipped(id, about, "no credentials") }),
	// Long words are hard to break, and markup must stay text.
	"fail": each(func(id check.ID) check.Finding {
		return check.Failed(id, about, check.NewFix("do this <b>at once</b>", check.Command{
			"aws", "iam", "update-assume-role-policy", "--policy-document", `{"Principal":"` + longARN + `"}`,
		}), "%s", longARN)
	}),
}

var (
	about = check.About{
		Subject:     "system:serviceaccount:monitoring:kube-prometheus-stack-prometheus",
		Destination: "central", Account: "111122223333",
	}
	longARN = "arn:aws:iam::111122223333:oidc-provider/westeurope.oic.prod-aks.azure.com/" + strings.Repeat("0123456789abcdef", 8) + "/"
)

// each returns a report with one finding for every check.
func each(finding func(check.ID) check.Finding) check.Report {
	r := check.Runner{Cluster: "dev-aks"}
	for _, c := range check.All {
		r.Add(finding(c.ID))
	}
	return r.Report()
}

func TestFormats(t *testing.T) {
	formats := map[string]func(io.Writer, check.Report) error{"txt": Text, "json": JSON, "html": HTML}
	for name, r := range reports {
		for extension, write := range formats {
			if name != "sample" && extension != "html" {
				continue
			}
			t.Run(name+"."+extension, func(t *testing.T) {
				var got bytes.Buffer
				testkit.Must(t, write(&got, r))
				testkit.Golden(t, filepath.Join("testdata", name+"."+extension), got.Bytes())
			})
		}
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

// With many service accounts the text lists only the findings that did not pass.
func TestTextOfManyFindings(t *testing.T) {
	var r check.Runner
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		r.Add(check.Passed(check.TrustDocument, check.About{Subject: "system:serviceaccount:monitoring:" + name}, "fine"))
	}
	r.Add(check.Failed(check.TrustDocument, check.About{Subject: "system:serviceaccount:monitoring:f"}, check.NewFix("fix it"), "wrong"))
	var got strings.Builder
	testkit.Must(t, Text(&got, r.Report()))
	want := `✓ trust            5 passed, the first for monitoring/a
✗ trust            monitoring/f: wrong
                   → fix it

0 checks passed, 1 failed (trust)
`
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Error(diff)
	}
}
