//go:build e2e

package browser

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/ampbridge/ampbridge/policy/check"
	"github.com/ampbridge/ampbridge/test/testkit"
)

var screenshots = flag.String("screenshots", "", "`DIR` for a picture of each page")

// timeout is for a browser on a busy machine.
const timeout = 2 * time.Minute

// packages write their pages with the flag -pages of their tests.
var packages = []string{"./cmd/internal/page", "./cmd/internal/doctor/report"}

// statuses are those of every check of a page of doctor; empty: they differ.
var statuses = map[string]check.Status{
	"pass": check.Pass, "warn": check.Warn, "fail": check.Fail, "skip": check.Skip, "sample": "",
}

var (
	// widths are those of a phone, a tablet, a laptop and a large screen.
	widths = []int64{390, 768, 1280, 1920}
	// edges are the widths at which the layout changes. The page with the longest words and
	// bold labels is also opened with them.
	edges = []int64{720, 721, 1040, 1041}
)

// TestPage opens each page with each width, in light and in dark.
func TestPage(t *testing.T) {
	dir := writePages(t)
	browser := open(t)
	for _, name := range append(slices.Sorted(maps.Keys(statuses)), "sheet") {
		for _, scheme := range []string{"light", "dark"} {
			all := widths
			if name == "fail" {
				all = slices.Concat(widths, edges)
			}
			for _, width := range all {
				t.Run(fmt.Sprintf("%s, %s, %d px", name, scheme, width), func(t *testing.T) {
					visit(t, browser, filepath.Join(dir, name+".html"), scheme, width)
				})
			}
		}
	}
}

// writePages returns a directory with all pages.
func writePages(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, pkg := range packages {
		testkit.Exec(t, "go", "-C", "../..", "test", "-count=1", "-run=^Test(Pages|Sheet)$", pkg, "-pages", dir)
	}
	return dir
}

// layout is what the browser measures of the page.
type layout struct {
	Checks, Statuses []string
	// Open and Closed are the checks that are folded open, and those that are not.
	Open, Closed                []string
	Steps, Shown, Scroll, Width int
	// Outside are visible texts that reach beyond the window, or beyond what holds them.
	Outside []string
	// Overlapping are texts of the diagram that lie on each other.
	Overlapping []string
	Bold        int
	Tall        float64
	// Texts is how many texts were measured. Pale are those with too little contrast, and
	// Contrast is the lowest.
	Texts    int
	Pale     []string
	Contrast float64
	Scheme   string
}

// measure first opens everything, so that all text is visible.
const measure = `(() => {
  const named = open => [...document.querySelectorAll('[data-check] > details')].filter(e => e.open === open)
    .map(e => e.parentElement.dataset.check);
  const state = {open: named(true), closed: named(false)};
  document.querySelectorAll('details').forEach(e => { e.open = true; });
  const checks = [...document.querySelectorAll('[data-check]')];
  const diagrams = [...document.querySelectorAll('svg')].filter(s => getComputedStyle(s).display !== 'none');
  const texts = [...document.querySelectorAll('h1, h2, p, pre, span, dt, dd, mark, summary, footer, svg text')]
    .filter(e => e.getClientRects().length > 0 && e.textContent.trim() !== '');
  const holder = e => e.closest('svg') || e.closest('li, section, .fix, dl, main');
  const outside = texts.filter(e => {
    const r = e.getBoundingClientRect(), h = holder(e).getBoundingClientRect();
    return r.left < 0 || r.right > innerWidth + 0.5 || r.left < h.left - 0.5 || r.right > h.right + 0.5 ||
      r.top < h.top - 0.5 || r.bottom > h.bottom + 0.5 ||
      !(e instanceof SVGElement) && e.clientWidth > 0 && e.scrollWidth > e.clientWidth + 1;
  });
  const drawn = diagrams.flatMap(d => [...d.querySelectorAll('text')]);
  const overlapping = drawn.flatMap((e, i) => drawn.slice(i + 1).filter(f => {
    const a = e.getBoundingClientRect(), b = f.getBoundingClientRect();
    return a.left < b.right - 0.5 && b.left < a.right - 0.5 && a.top < b.bottom - 0.5 && b.top < a.bottom - 0.5;
  }).map(f => e.textContent + ' / ' + f.textContent));
  const labels = diagrams.flatMap(d => [...d.querySelectorAll('.label, .participant')]);

  const parse = colour => (colour.match(/[0-9.]+/g) || []).map(Number);
  const luminance = ([r, g, b]) => [r, g, b].map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = e => {
    if (e.classList.contains('number')) { return parse(getComputedStyle(e.parentElement.querySelector('.dot')).fill); }
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length === 3) { return c; }
    }
    return [255, 255, 255];
  };
  const contrast = e => {
    const style = getComputedStyle(e);
    const a = luminance(parse(e instanceof SVGElement ? style.fill : style.color)), b = luminance(ground(e));
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  };
  const measured = texts.map(e => [contrast(e), e]);
  return {
    ...state, checks: checks.map(e => e.dataset.check), statuses: checks.map(e => e.dataset.status),
    steps: diagrams.flatMap(d => [...d.querySelectorAll('[data-step]')]).length, shown: diagrams.length,
    scroll: document.documentElement.scrollWidth, width: document.documentElement.clientWidth,
    outside: outside.map(e => e.textContent), overlapping, bold: document.querySelectorAll('b').length,
    tall: labels.length ? Math.min(...labels.map(e => e.getBoundingClientRect().height)) : 0,
    texts: texts.length, contrast: Math.min(...measured.map(m => m[0])),
    pale: measured.filter(m => m[0] < 4.5)
      .map(([c, e]) => c.toFixed(2) + ' ' + (e.className.baseVal ?? e.className) + ': ' + e.textContent),
    scheme: matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light',
  };
})()`

func visit(t *testing.T, browser context.Context, file, scheme string, width int64) {
	name := strings.TrimSuffix(filepath.Base(file), ".html")
	var messages, requests testkit.Buffer
	listen := func(event any) {
		switch e := event.(type) {
		case *runtime.EventConsoleAPICalled:
			_, _ = fmt.Fprintln(&messages, "console."+string(e.Type))
		case *runtime.EventExceptionThrown:
			_, _ = fmt.Fprintln(&messages, e.ExceptionDetails.Text)
		case *log.EventEntryAdded:
			_, _ = fmt.Fprintln(&messages, e.Entry.Text)
		case *network.EventRequestWillBeSent:
			_, _ = fmt.Fprintln(&requests, e.Request.URL)
		}
	}
	tab, cancel := chromedp.NewContext(browser, chromedp.WithListener(listen))
	defer cancel()
	visible(t, tab, file, scheme, width)
	if *screenshots != "" {
		picture, err := chromedp.Run(tab, chromedp.FullScreenshot(100))
		testkit.Must(t, err)
		to := filepath.Join(*screenshots, fmt.Sprintf("%s-%s-%d.png", name, scheme, width))
		testkit.Must(t, os.WriteFile(to, picture, 0o644))
	}
	s, err := chromedp.Run(tab, chromedp.Evaluate[layout](measure))
	testkit.Must(t, err)
	if shown := messages.String(); shown != "" {
		t.Errorf("the console shows\n%s", shown)
	}
	if requests.String() == "" {
		t.Error("no request was seen, not even that for the page")
	}
	for r := range strings.Lines(requests.String()) {
		if !strings.HasPrefix(r, "file://") && !strings.HasPrefix(r, "data:") {
			t.Errorf("the page requests %s", r)
		}
	}
	if s.Scheme != scheme {
		t.Errorf("the page is %s", s.Scheme)
	}
	if s.Scroll > s.Width || int64(s.Width) != width || len(s.Outside) > 0 {
		t.Errorf("the page is %d px wide in a window of %d; outside of it, or of what holds it: %q", s.Scroll, s.Width,
			s.Outside)
	}
	if len(s.Pale) > 0 || s.Texts < 10 {
		t.Errorf("of %d texts, these have a contrast below 4.5: %q", s.Texts, s.Pale)
	}
	t.Logf("%d texts, the lowest contrast is %.2f", s.Texts, s.Contrast)
	if s.Bold > 0 {
		t.Error("text of a finding became markup")
	}
	if status, ofDoctor := statuses[name]; ofDoctor {
		s.verifyChecks(t, status)
	}
}

// visible opens a page.
func visible(t *testing.T, tab context.Context, file, scheme string, width int64) {
	t.Helper()
	testkit.Must(t, chromedp.Do(tab, chromedp.EmulateViewport(width, 844)))
	_, err := chromedp.Call(tab, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	})
	testkit.Must(t, err)
	testkit.Must(t, chromedp.Do(tab, chromedp.Navigate("file://"+file)))
}

// On paper nothing can be opened: the content of closed checks and of folded results is printed.
func TestPrint(t *testing.T) {
	const hidden = `[...document.querySelectorAll('.finding, pre')].
		filter(e => !e.checkVisibility() || e.getClientRects().length === 0).length`
	dir := writePages(t)
	tab, cancel := chromedp.NewContext(open(t))
	defer cancel()
	visible(t, tab, filepath.Join(dir, "warn.html"), "light", 1040)
	for _, media := range []string{"screen", "print"} {
		if _, err := chromedp.Call(tab, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Media: media}); err != nil {
			t.Fatal(err)
		}
		n, err := chromedp.Run(tab, chromedp.Evaluate[int](hidden))
		if err != nil {
			t.Fatal(err)
		}
		if (n == 0) != (media == "print") {
			t.Errorf("%s: %d findings and commands are hidden", media, n)
		}
	}
}

// Without any script, a click on a command selects exactly the command, and a click on a
// check opens it.
func TestClicks(t *testing.T) {
	dir := writePages(t)
	tab, cancel := chromedp.NewContext(open(t))
	defer cancel()
	visible(t, tab, filepath.Join(dir, "sample.html"), "light", 390)
	for _, at := range []string{"section.todo pre", "#check-trust pre"} {
		testkit.Must(t, chromedp.Do(tab, chromedp.Click(at)))
		selected, err := chromedp.Run(tab, chromedp.Evaluate[string]("getSelection().toString()"))
		testkit.Must(t, err)
		if !strings.HasPrefix(selected, "aws iam update-assume-role-policy --role-name ") ||
			!strings.HasSuffix(selected, "}]}'") ||
			strings.Contains(selected, "\n") {
			t.Errorf("%s: a click selects %q", at, selected)
		}
	}
	const isOpen = "document.querySelector('#check-certificate details').open"
	for _, want := range []bool{false, true} {
		got, err := chromedp.Run(tab, chromedp.Evaluate[bool](isOpen))
		testkit.Must(t, err)
		if got != want {
			t.Errorf("the check is open: %v, want %v", got, want)
		}
		testkit.Must(t, chromedp.Do(tab, chromedp.Click("#check-certificate summary")))
	}
}

// verifyChecks verifies the checks of a page of doctor, and its diagram.
func (s layout) verifyChecks(t *testing.T, status check.Status) {
	t.Helper()
	if status != "" {
		var checks, statuses []string
		for _, c := range check.All {
			checks, statuses = append(checks, string(c.ID)), append(statuses, string(status))
		}
		if !slices.Equal(s.Checks, checks) || !slices.Equal(s.Statuses, statuses) {
			t.Errorf("checks %v, statuses %v\nwant %v, %v", s.Checks, s.Statuses, checks, statuses)
		}
	}
	for i, c := range s.Checks {
		failed := s.Statuses[i] == string(check.Fail)
		if slices.Contains(s.Open, c) != failed || slices.Contains(s.Closed, c) == failed {
			t.Errorf("%s has the status %s; open are %v", c, s.Statuses[i], s.Open)
		}
	}
	if s.Shown != 1 || s.Steps != 10 {
		t.Errorf("%d diagrams with %d steps are shown, want 1 with 10", s.Shown, s.Steps)
	}
	if len(s.Overlapping) > 0 {
		t.Errorf("texts of the diagram lie on each other: %q", s.Overlapping)
	}
	const readable = 12
	if s.Tall < readable {
		t.Errorf("a text of the diagram is %.1f px tall", s.Tall)
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
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true),
		chromedp.Flag("hide-scrollbars", true))
	t.Cleanup(cancel)
	browser, cancel := chromedp.NewContext(allocator)
	t.Cleanup(cancel)
	if err := chromedp.Do(browser); err != nil {
		t.Fatalf("start the browser: %v", err)
	}
	return browser
}
