package report

import (
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ampbridge/ampbridge/policy/check"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// uncoloured returns text without the escape codes of colours.
func uncoloured(text string) string {
	return regexp.MustCompile("\x1b\\[[0-9;]*m").ReplaceAllString(text, "")
}

// Each outcome is a line as soon as its first check has ended. The report repeats only what
// did not pass.
func TestLive(t *testing.T) {
	var got strings.Builder
	live := Printer{}.Live(&got)
	r := check.Runner{Added: live.Print}
	var steps []string
	step := func(f check.Finding) {
		before := got.Len()
		r.Add(f)
		steps = append(steps, got.String()[before:])
	}
	step(check.Passed(check.TrustDocument, object("a"), "lets monitoring/a in"))
	step(check.Passed(check.TrustDocument, object("b"), "lets monitoring/b in"))
	step(check.Failed(check.TrustDocument, object("c"), check.NewFix("fix it"), "it is closed"))
	if diff := cmp.Diff([]string{
		"✓ trust            monitoring/a → central: lets monitoring/a in\n",
		"",
		"✗ trust            monitoring/c → central: it is closed\n",
	}, steps); diff != "" {
		t.Error(diff)
	}
	before := got.Len()
	testkit.Must(t, live.End(&got, r.Report()))
	if diff := cmp.Diff(`
✗ 1 check failed: trust; 0 passed. First fix: fix it

✗ trust            monitoring/c → central: it is closed
                   → fix it
`, got.String()[before:]); diff != "" {
		t.Error(diff)
	}
}

// What a later check proved is printed again with its new sign.
func TestLivePrintsWhatWasProven(t *testing.T) {
	var got strings.Builder
	live := Printer{}.Live(&got)
	r := check.Runner{Added: live.Print}
	r.Add(check.Passed(check.Policy, check.About{}, "policy.yaml"), check.Skipped(check.Certificate, check.About{}, "not read"))
	r.Prove(check.Certificate, check.About{}, "the dry run proves it")
	before := got.Len()
	testkit.Must(t, live.End(&got, r.Report()))
	end := got.String()[before:]
	if !strings.Contains(end, "✓ certificate      the dry run proves it") || strings.Contains(end, "policy.yaml") {
		t.Error(end)
	}
}

// failing refuses every write.
type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("the pipe is closed") }

func TestLiveReportsAFailedWrite(t *testing.T) {
	live := Printer{}.Live(failing{})
	live.Print(check.Passed(check.Policy, check.About{}, ""))
	live.Print(check.Passed(check.Grant, check.About{}, ""))
	if err := live.End(failing{}, check.Report{}); err == nil || err.Error() != "the pipe is closed" {
		t.Error(err)
	}
}

// With colours the text is the same. Text of the cluster never has escape codes.
func TestColours(t *testing.T) {
	const hostile = "a\x1b[2J\x1b]0;title\a\u009b31m\u202eb"
	r := check.Runner{Cluster: hostile}
	r.Add(
		check.Failed(check.Policy, check.About{Subject: hostile, Destination: hostile},
			check.NewFix(hostile, check.Command{"echo", hostile}), "%s", hostile).Comparing("issuer", hostile, hostile+"\x1b"),
		check.Passed(check.Grant, check.About{}, "%s", hostile),
		check.Warned(check.Certificate, check.About{}, check.NewFix("a"), "b"),
		check.Skipped(check.Flow, check.About{}, "c"),
	)
	plain := text(t, r.Report())
	if strings.ContainsAny(plain, "\x1b\a\u009b\u202e") {
		t.Errorf("control characters in %q", plain)
	}
	var coloured strings.Builder
	testkit.Must(t, Printer{Color: true}.Text(&coloured, r.Report()))
	if diff := cmp.Diff(plain, uncoloured(coloured.String())); diff != "" {
		t.Error(diff)
	}
	for _, code := range colors {
		if !strings.Contains(coloured.String(), "\x1b["+code+"m") {
			t.Errorf("no text has the colour %s", code)
		}
	}
}
