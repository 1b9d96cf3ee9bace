package page

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/policy/check"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// pages is for test/browser, which opens the pages in a browser.
var pages = flag.String("pages", "", "write pages to this `DIR`")

// A sheet has the head of all pages. Its texts stay text, and a section without items is
// left out.
func TestSheet(t *testing.T) {
	long := "arn:aws:iam::111122223333:oidc-provider/oidc.example/" + strings.Repeat("0123456789abcdef", 8)
	item := func(status check.Status) Item {
		return Item{Status: status, Name: string(status) + "-destination-with-a-name-of-63-characters-0123456789abcdef",
			About: "<b>" + long,
			Lines: []Line{
				{Status: status, About: "team/prometheus-0", Message: long}, {Status: status, Message: "<script>x</script>"},
			}}
	}
	s := Sheet{
		Title: "ampbridge sync · cluster dev-aks", Summary: "AWS is in sync with the policy",
		Rest:   "Last pass: a moment ago.",
		Status: check.Pass, Footer: "It contains no secrets.",
		Sections: []Section{
			{Title: "Last pass", Items: []Item{item(check.Pass), item(check.Fail)}},
			{Title: "Empty"},
			{Title: "Last audit", Items: []Item{item(check.Warn), item(check.Skip)}},
		},
	}
	var got bytes.Buffer
	testkit.Must(t, s.HTML(&got))
	start, content, _ := strings.Cut(got.String(), "<main>")
	testkit.Golden(t, filepath.Join("testdata", "sheet.html"), content)
	if want := strings.Replace(head, "<title>", "<title>✓ "+s.Title, 1); start+"<main>\n" != want {
		t.Errorf("the page begins with\n%s\nwant\n%s", start, want)
	}
	for _, lack := range []string{"<script", "<b>", "Empty"} {
		if strings.Contains(got.String(), lack) {
			t.Errorf("the page has %q", lack)
		}
	}
	if *pages != "" {
		testkit.Must(t, os.WriteFile(filepath.Join(*pages, "sheet.html"), got.Bytes(), 0o644))
	}
}
