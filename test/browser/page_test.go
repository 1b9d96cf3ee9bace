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

// timeout is for a browser on a busy machine.
const timeout = 2 * time.Minute

// pages are golden files of cmd/internal/doctor/report, with the status of every check:
// all passed, all failed with words that are hard to break and with markup, and all
// skipped. The tests of that package compare them with what doctor writes.
var pages = map[string]check.Status{"pass": check.Pass, "fail": check.Fail, "skip": check.Skip}

func TestPage(t *testing.T) {
	browser := open(t)
	for name, status := range pages {
		file, err := filepath.Abs(filepath.Join("..", "..", "cmd", "internal", "doctor", "report", "testdata", name+".html"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(file); err != nil {
			t.Fatal(err)
		}
		for _, width := range []int64{1280, 390} {
			t.Run(fmt.Sprintf("%s, %d px", name, width), func(t *testing.T) { visit(t, browser, file, name, width, status) })
		}
	}
}

// layout is what the browser measures of the page.
type layout struct {
	Checks   []string `json:"checks"`
	Statuses []string `json:"statuses"`
	Steps    int      `json:"steps"`
	Shown    int      `json:"shown"`
	Scroll   int      `json:"scroll"`
	Width    int      `json:"width"`
	// Outside are visible texts that reach beyond the window.
	Outside []string `json:"outside"`
	Bold    int      `json:"bold"`
	Tall    float64  `json:"tall"`
}

const measure = `(() => {
  const checks = [...document.querySelectorAll('[data-check]')];
  const diagrams = [...document.querySelectorAll('svg')].filter(s => getComputedStyle(s).display !== 'none');
  const texts = [...document.querySelectorAll('p, pre, span, svg text')].filter(e => e.getClientRects().length > 0);
  const outside = texts.filter(e => { const r = e.getBoundingClientRect(); return r.left < 0 || r.right > innerWidth + 0.5; });
  const labels = diagrams.flatMap(d => [...d.querySelectorAll('.label')]);
  return {
    checks: checks.map(e => e.dataset.check), statuses: checks.map(e => e.dataset.status),
    steps: diagrams.flatMap(d => [...d.querySelectorAll('[data-step]')]).length, shown: diagrams.length,
    scroll: document.documentElement.scrollWidth, width: document.documentElement.clientWidth,
    outside: outside.map(e => e.textContent), bold: document.querySelectorAll('b').length,
    tall: Math.min(...labels.map(e => e.getBoundingClientRect().height)),
  };
})()`

func visit(t *testing.T, browser context.Context, file, name string, width int64, status check.Status) {
	var mu sync.Mutex
	var messages, requests []string
	listen := func(event any) {
		mu.Lock()
		defer mu.Unlock()
		switch e := event.(type) {
		case *runtime.EventConsoleAPICalled:
			messages = append(messages, "console."+string(e.Type))
		case *runtime.EventExceptionThrown:
			messages = append(messages, e.ExceptionDetails.Text)
		case *log.EventEntryAdded:
			messages = append(messages, e.Entry.Text)
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
	s, err := chromedp.Run(tab, chromedp.Evaluate[layout](measure))
	if err != nil {
		t.Fatal(err)
	}
	picture, err := chromedp.Run(tab, chromedp.FullScreenshot(100))
	if err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(messages) > 0 {
		t.Errorf("the console shows %q", messages)
	}
	if len(requests) == 0 {
		t.Error("no request was seen, not even that for the page")
	}
	for _, r := range requests {
		if !strings.HasPrefix(r, "file://") && !strings.HasPrefix(r, "data:") {
			t.Errorf("the page requests %s", r)
		}
	}
	var checks, statuses []string
	for _, c := range check.All {
		checks, statuses = append(checks, string(c.ID)), append(statuses, string(status))
	}
	if !slices.Equal(s.Checks, checks) || !slices.Equal(s.Statuses, statuses) {
		t.Errorf("checks %v, statuses %v\nwant %v, %v", s.Checks, s.Statuses, checks, statuses)
	}
	if s.Shown != 1 || s.Steps != 10 {
		t.Errorf("%d diagrams with %d steps are shown, want 1 with 10", s.Shown, s.Steps)
	}
	if s.Scroll > s.Width || int64(s.Width) != width || len(s.Outside) > 0 {
		t.Errorf("the page is %d px wide in a window of %d; outside of it: %q", s.Scroll, s.Width, s.Outside)
	}
	const readable = 10
	if s.Tall < readable {
		t.Errorf("the diagram's labels are %.1f px tall", s.Tall)
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

// open starts a browser with its own profile. It stops at the end of the test.
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
		chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun, chromedp.WSURLReadTimeout(timeout),
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
