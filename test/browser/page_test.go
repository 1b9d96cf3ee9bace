//go:build e2e

package browser

import (
	"context"
	"flag"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/ampbridge/ampbridge/policy/check"
)

var screenshots = flag.String("screenshots", "", "`DIR` for a picture of each page")

// patience is for a browser on a busy machine.
const patience = 2 * time.Minute

// ladders are the pages: one where all is well, one where all is broken and
// says so in words that are hard to break, one with nothing but means missing.
func ladders() map[string]check.Ladder {
	about := check.About{Subject: "system:serviceaccount:monitoring:kube-prometheus-stack-prometheus", Destination: "central", Account: "111122223333"}
	long := "arn:aws:iam::111122223333:oidc-provider/westeurope.oic.prod-aks.azure.com/" + strings.Repeat("0123456789abcdef", 8) + "/"
	pages := map[string]check.Ladder{}
	for name, finding := range map[string]func(check.Link) check.Finding{
		"well": func(l check.Link) check.Finding { return check.Holds(l, about, "%s", long) },
		"broken": func(l check.Link) check.Finding {
			return check.Fails(l, about, check.Do("do this <b>at once</b>", check.Command{"aws", "iam", "update-assume-role-policy", "--policy-document", `{"Principal":"` + long + `"}`}), "%s", long)
		},
		"unseen": func(l check.Link) check.Finding { return check.Unseen(l, about, "no credentials") },
	} {
		e := check.Examination{Cluster: "dev-aks"}
		for _, r := range check.Chain {
			e.Add(finding(r.Link))
		}
		pages[name] = e.Ladder()
	}
	return pages
}

func TestPage(t *testing.T) {
	browser := open(t)
	for name, ladder := range ladders() {
		file := filepath.Join(t.TempDir(), name+".html")
		w, err := os.Create(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := ladder.HTML(w); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		for _, width := range []int64{1280, 390} {
			t.Run(fmt.Sprintf("%s, %d px", name, width), func(t *testing.T) { look(t, browser, file, name, width, ladder) })
		}
	}
}

// seen is what the page's own elements say.
type seen struct {
	Links  []string `json:"links"`
	States []string `json:"states"`
	Steps  int      `json:"steps"`
	Shown  int      `json:"shown"`
	Scroll int      `json:"scroll"`
	Width  int      `json:"width"`
	// Outside are texts that reach beyond the window; Hidden ones are not looked at.
	Outside []string `json:"outside"`
	Bold    int      `json:"bold"`
	Tall    float64  `json:"tall"`
}

const examine = `(() => {
  const rungs = [...document.querySelectorAll('[data-link]')];
  const diagrams = [...document.querySelectorAll('svg')].filter(s => getComputedStyle(s).display !== 'none');
  const texts = [...document.querySelectorAll('p, pre, span, svg text')].filter(e => e.getClientRects().length > 0);
  const outside = texts.filter(e => { const r = e.getBoundingClientRect(); return r.left < 0 || r.right > innerWidth + 0.5; });
  const says = diagrams.flatMap(d => [...d.querySelectorAll('.says')]);
  return {
    links: rungs.map(e => e.dataset.link), states: rungs.map(e => e.dataset.state),
    steps: diagrams.flatMap(d => [...d.querySelectorAll('[data-step]')]).length, shown: diagrams.length,
    scroll: document.documentElement.scrollWidth, width: document.documentElement.clientWidth,
    outside: outside.map(e => e.textContent), bold: document.querySelectorAll('b').length,
    tall: Math.min(...says.map(e => e.getBoundingClientRect().height)),
  };
})()`

func look(t *testing.T, browser context.Context, file, name string, width int64, ladder check.Ladder) {
	var mu sync.Mutex
	var complaints, requests []string
	listen := func(event any) {
		mu.Lock()
		defer mu.Unlock()
		switch e := event.(type) {
		case *runtime.EventConsoleAPICalled:
			complaints = append(complaints, "console."+string(e.Type))
		case *runtime.EventExceptionThrown:
			complaints = append(complaints, e.ExceptionDetails.Text)
		case *log.EventEntryAdded:
			complaints = append(complaints, e.Entry.Text)
		case *network.EventRequestWillBeSent:
			requests = append(requests, e.Request.URL)
		}
	}
	tab, cancel := chromedp.NewContext(browser, chromedp.WithListener(listen))
	defer cancel()
	at := (&url.URL{Scheme: "file", Path: file}).String()
	if err := chromedp.Do(tab, chromedp.EmulateViewport(width, 844), chromedp.Navigate(at)); err != nil {
		t.Fatal(err)
	}
	s, err := chromedp.Run(tab, chromedp.Evaluate[seen](examine))
	if err != nil {
		t.Fatal(err)
	}
	picture, err := chromedp.Run(tab, chromedp.FullScreenshot(100))
	if err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(complaints) > 0 {
		t.Errorf("the console says %q", complaints)
	}
	if len(requests) == 0 {
		t.Error("no request was seen, not even that for the page")
	}
	for _, r := range requests {
		if !strings.HasPrefix(r, "file://") && !strings.HasPrefix(r, "data:") {
			t.Errorf("the page asks for %s", r)
		}
	}
	var links, states []string
	for _, r := range check.Chain {
		links, states = append(links, string(r.Link)), append(states, string(ladder.State(r.Link)))
	}
	if !slices.Equal(s.Links, links) || !slices.Equal(s.States, states) {
		t.Errorf("links %v, states %v\nwant %v, %v", s.Links, s.States, links, states)
	}
	if s.Shown != 1 || s.Steps != 10 {
		t.Errorf("%d diagrams with %d steps are shown, want 1 with 10", s.Shown, s.Steps)
	}
	if s.Scroll > s.Width || int64(s.Width) != width || len(s.Outside) > 0 {
		t.Errorf("the page is %d px wide in a window of %d; outside of it: %q", s.Scroll, s.Width, s.Outside)
	}
	const readable = 10
	if s.Tall < readable {
		t.Errorf("the diagram's words are %.1f px tall", s.Tall)
	}
	if s.Bold > 0 {
		t.Error("text of a finding became markup")
	}
	if *screenshots != "" {
		if err := os.WriteFile(filepath.Join(*screenshots, fmt.Sprintf("%s-%d.png", name, width)), picture, 0o644); err != nil {
			t.Error(err)
		}
	}
}

// open starts a browser with a profile of its own, which ends with the test.
func open(t *testing.T) context.Context {
	t.Helper()
	path := os.Getenv("CHROMIUM")
	if path == "" {
		path = "/usr/bin/chromium"
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("no browser: %v (apt-get install chromium, or set CHROMIUM)", err)
	}
	allocator, cancel := chromedp.NewExecAllocator(t.Context(), chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir()),
		chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun, chromedp.WSURLReadTimeout(patience),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true), chromedp.Flag("hide-scrollbars", true))
	t.Cleanup(cancel)
	browser, cancel := chromedp.NewContext(allocator)
	t.Cleanup(cancel)
	if err := chromedp.Do(browser); err != nil {
		t.Fatalf("start the browser: %v", err)
	}
	return browser
}
