package report

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/policy/check"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// A sheet has the report's head and design. Its texts stay text, and a section without
// items is left out.
func TestSheet(t *testing.T) {
	item := func(status check.Status) Item {
		return Item{Status: status, Name: string(status), About: "<b>" + longARN, Lines: []Line{
			{Status: status, About: "team/prometheus-0", Message: longARN}, {Status: status, Message: "<script>x</script>"},
		}}
	}
	s := Sheet{
		Title: "ampbridge sync · cluster dev-aks", Summary: "AWS is in sync with the policy", Rest: "Last pass: a moment ago.",
		Status: check.Pass, Footer: "It contains no secrets.",
		Sections: []Section{
			{Title: "Last pass", Items: []Item{item(check.Pass), item(check.Fail)}},
			{Title: "Empty"},
			{Title: "Last audit", Items: []Item{item(check.Warn), item(check.Skip)}},
		},
	}
	var got bytes.Buffer
	testkit.Must(t, s.HTML(&got))
	testkit.Golden(t, filepath.Join("testdata", "sheet.html"), got.Bytes())
	head, _, _ := strings.Cut(pageHead, "<title>")
	if !strings.HasPrefix(got.String(), head) {
		t.Error("the page has another head than the report")
	}
	for _, lack := range []string{"<script", "<b>", "Empty"} {
		if strings.Contains(got.String(), lack) {
			t.Errorf("the page has %q", lack)
		}
	}
}
