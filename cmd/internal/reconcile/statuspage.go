package reconcile

import (
	"bytes"
	"cmp"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ampbridge/ampbridge/cmd/internal/page"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/check"
	"github.com/ampbridge/ampbridge/policy/plan"
	"github.com/ampbridge/ampbridge/webhook/audit"
)

// maxRows limits each list of the status page.
const maxRows = 100

// board holds the results of the last pass and the last audit, for the status page. Passes and
// audits write it. Requests only read it, so that they start no work.
type board struct {
	mu    sync.Mutex
	pass  *passSeen
	audit *audit.Seen
}

// passSeen is the result of a pass.
type passSeen struct {
	at, next time.Time
	policy   *policy.Policy
	// plan is nil if no plan was possible.
	plan   *plan.Plan
	made   int
	inSync bool
	lines  []line
}

func (b *board) setPass(p passSeen) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pass = &p
}

func (b *board) setAudit(s audit.Seen) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.audit = &s
}

func (b *board) read() (*passSeen, *audit.Seen) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.pass, b.audit
}

// statusPage serves GET / for people who forward the port. It refuses other host names, so that a
// web site cannot read the page by a DNS name that resolves to this address.
func (c *controller) statusPage() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		for name, value := range map[string]string{
			"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; " +
				"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
			"Cache-Control":                "no-store",
			"Cross-Origin-Opener-Policy":   "same-origin",
			"Cross-Origin-Resource-Policy": "same-origin",
			"Referrer-Policy":              "no-referrer",
			"X-Content-Type-Options":       "nosniff",
			"X-Frame-Options":              "DENY",
		} {
			header.Set(name, value)
		}
		switch {
		case !loopbackName(r.Host):
			http.Error(w, "use the host name localhost or 127.0.0.1", http.StatusMisdirectedRequest)
		case r.Method != http.MethodGet:
			header.Set("Allow", http.MethodGet)
			http.Error(w, "only GET", http.StatusMethodNotAllowed)
		case r.URL.Path != "/":
			http.Error(w, "the page is at /", http.StatusNotFound)
		default:
			var content bytes.Buffer
			if err := c.statusSheet(time.Now()).HTML(&content); err != nil {
				http.Error(w, "the page cannot be rendered", http.StatusInternalServerError)
				return
			}
			header.Set("Content-Type", "text/html; charset=utf-8")
			_, _ = w.Write(content.Bytes()) // an error means that the client disconnected
		}
	})
}

// loopbackName reports whether the Host of a request is a loopback name or address.
func loopbackName(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	address, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"))
	return err == nil && address.IsLoopback()
}

// LoopbackAddress reports whether only this machine can reach HOST:PORT.
func LoopbackAddress(address string) bool {
	host, _, err := net.SplitHostPort(address)
	return err == nil && loopbackName(host)
}

// statusSheet returns the page for that time.
func (c *controller) statusSheet(now time.Time) page.Sheet {
	pass, seen := c.board.read()
	s := page.Sheet{Title: "ampbridge sync", Footer: "✓ as it should be · ✗ failed · ! needs attention · – not known. " +
		"This page shows the results of the last pass and the last audit; loading it starts no new one. It contains no secrets."}
	if p := c.policy.Current(); p != nil && p.Cluster.Name != "" {
		s.Title += " · cluster " + p.Cluster.Name
	}
	var rest []string
	switch {
	case !c.leads.Load():
		s.Status, s.Summary = check.Skip, "This process is on standby"
		rest = append(rest, "Another process is the leader, or there is none. The Lease "+stateName+
			" names the leader's pod: forward a port of that pod.")
	case pass == nil:
		s.Status, s.Summary = check.Skip, "No pass has ended yet"
	case pass.inSync:
		s.Status, s.Summary = check.Pass, "AWS is in sync with the policy"
	default:
		s.Status, s.Summary = check.Fail, "AWS is not in sync with the policy"
	}
	if pass != nil {
		rest = append(rest, fmt.Sprintf("Last pass: %s. Next one: %s.", ago(pass.at, now), pass.next.UTC().Format(time.TimeOnly)))
	}
	if seen != nil {
		rest = append(rest, fmt.Sprintf("Last audit: %s.", ago(seen.At, now)))
	}
	s.Rest = strings.Join(rest, " ")
	if err := c.policy.Err(); err != nil {
		s.Sections = append(s.Sections, page.Section{Title: "Policy", Items: []page.Item{{
			Status: check.Fail, Name: "Policy", About: "The newest version is refused; the last good one, if any, is in force.",
			Lines: []page.Line{{Status: check.Fail, Message: shorten(err.Error())}},
		}}})
	}
	if pass != nil {
		s.Sections = append(s.Sections, passSections(pass)...)
	}
	if seen != nil {
		s.Sections = append(s.Sections, auditSections(seen, now)...)
	}
	return s
}

// ago returns a time of day with its distance from now.
func ago(at, now time.Time) string {
	return fmt.Sprintf("%s UTC, %s ago", at.UTC().Format(time.TimeOnly), now.Sub(at).Round(time.Second))
}

func passSections(pass *passSeen) []page.Section {
	var wrong, notes []page.Line
	for _, l := range pass.lines {
		if l.level >= slog.LevelError {
			wrong = append(wrong, page.Line{Status: check.Fail, Message: shorten(l.text)})
		} else {
			notes = append(notes, page.Line{Status: check.Skip, Message: shorten(l.text)})
		}
	}
	outcome := page.Item{Status: check.Pass, Name: "AWS", About: "What the last pass changed, and what it could not change."}
	if len(wrong) > 0 || !pass.inSync {
		outcome.Status = check.Fail
	}
	made := fmt.Sprintf("%d changes were made.", pass.made)
	if pass.made == 0 {
		made = "Nothing was changed."
	}
	outcome.Lines = bounded(append(wrong, append([]page.Line{{Status: check.Pass, Message: made}}, notes...)...))
	destinations := page.Section{Title: "Destinations"}
	for _, d := range pass.policy.Destinations {
		item := page.Item{Status: check.Pass, Name: d.Name, About: d.Workspace.String()}
		if !plan.Managed(pass.policy, d) {
			item.Status = check.Skip
			item.Lines = append(item.Lines, page.Line{Status: check.Skip, Message: "You manage its role: sync does not change it."})
		} else if pass.plan == nil {
			item.Status = check.Skip
		}
		item.Lines = append(item.Lines, subjectLines(pass.plan, d.Name)...)
		if item.Status == check.Pass && slices.ContainsFunc(item.Lines, func(l page.Line) bool { return l.Status == check.Warn }) {
			item.Status = check.Warn
		}
		item.Lines = bounded(item.Lines)
		destinations.Items = append(destinations.Items, item)
	}
	if lines := subjectLines(pass.plan, ""); len(lines) > 0 {
		destinations.Items = append(destinations.Items, page.Item{
			Status: check.Warn, Name: "No grant", About: "Service accounts that ask for injection without a grant.", Lines: bounded(lines),
		})
	}
	destinations.Items = boundedItems(destinations.Items)
	return []page.Section{{Title: "Last pass", Items: []page.Item{outcome}}, destinations}
}

// subjectLines returns the status of a destination's subjects, those without trust first.
func subjectLines(p *plan.Plan, destination string) (lines []page.Line) {
	if p == nil {
		return nil
	}
	for _, s := range p.SubjectStatuses {
		if s.Destination != destination {
			continue
		}
		l := page.Line{Status: check.Warn, About: s.Subject.String(), Message: s.Message}
		if s.State == plan.Trusted {
			l.Status, l.Message = check.Pass, "trusted, as "+s.Role.String()
		}
		lines = append(lines, l)
	}
	slices.SortFunc(lines, func(a, b page.Line) int {
		return cmp.Or(cmp.Compare(b.Status, a.Status), cmp.Compare(a.About, b.About))
	})
	return lines
}

func auditSections(seen *audit.Seen, now time.Time) []page.Section {
	counts := page.Item{Status: check.Pass, Name: "Pods", About: "Prometheus pods of labelled namespaces."}
	for _, kind := range slices.Sorted(func(yield func(audit.Kind) bool) {
		for kind := range seen.Pods {
			if kind != audit.None && !yield(kind) {
				return
			}
		}
	}) {
		l := page.Line{Status: statusOf(kind), Message: fmt.Sprintf("%d %s", seen.Pods[kind], kind)}
		if l.Status != check.Pass {
			counts.Status = check.Warn
		}
		counts.Lines = append(counts.Lines, l)
	}
	if len(counts.Lines) == 0 {
		counts.Lines = []page.Line{{Status: check.Skip, Message: "There is none."}}
	}
	if seen.Error != "" {
		counts.Status = check.Fail
		counts.Lines = append(counts.Lines, page.Line{Status: check.Fail, Message: shorten(seen.Error)})
	}
	items := []page.Item{counts}
	for _, p := range seen.Notable {
		items = append(items, page.Item{
			Status: statusOf(p.Kind), Name: string(p.Kind), About: p.Namespace + "/" + p.Name,
			Lines: []page.Line{{Status: statusOf(p.Kind), About: string(p.Reason), Message: strings.TrimSpace(p.Text + " For " +
				now.Sub(p.Since).Round(time.Second).String() + ".")}},
		})
	}
	items = boundedItems(items)
	if seen.More > 0 {
		items = append(items, page.Item{Status: check.Warn, Name: "…", About: fmt.Sprintf("and %d more", seen.More)})
	}
	var open []page.Item
	for _, w := range seen.Open {
		open = append(open, page.Item{Status: check.Warn, Name: w.Namespace, About: w.String()})
	}
	return []page.Section{{Title: "Last audit", Items: items}, {Title: "Injection pauses", Items: boundedItems(open)}}
}

func statusOf(kind audit.Kind) check.Status {
	switch kind {
	case audit.Healthy:
		return check.Pass
	case audit.Stuck:
		return check.Fail
	}
	return check.Warn
}

func bounded(lines []page.Line) []page.Line {
	if more := len(lines) - maxRows; more > 0 {
		return append(lines[:maxRows:maxRows], page.Line{Status: check.Skip, Message: fmt.Sprintf("and %d more", more)})
	}
	return lines
}

func boundedItems(items []page.Item) []page.Item {
	if more := len(items) - maxRows; more > 0 {
		return append(items[:maxRows:maxRows], page.Item{Status: check.Skip, Name: "…", About: fmt.Sprintf("and %d more", more)})
	}
	return items
}
