package reconcile

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/plan"
	"github.com/ampbridge/ampbridge/test/policytest"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/webhook/audit"
	"github.com/ampbridge/ampbridge/webhook/breaker"
)

// pagePolicy has a second destination, which has the user's own role.
var pagePolicy = strings.NewReplacer(
	"grants:", `- name: own
  workspace: arn:aws:aps:eu-west-1:111122223333:workspace/ws-0002
  role: arn:aws:iam::111122223333:role/own
grants:`,
	"destinations: [central]", "destinations: [central, own]",
).Replace(policytest.Granting("prometheus", "monitoring"))

// pageOf is a controller with a policy, which does nothing: all that a page may need.
func pageOf(t *testing.T, text string) *controller {
	t.Helper()
	file := testkit.TempFile(t, "policy.yaml", text)
	c := &controller{logger: slog.New(slog.DiscardHandler), metrics: newMetrics(prometheus.NewRegistry())}
	c.policy = watchPolicy(file, c.metrics, c.logger, func() {})
	c.leads.Store(true)
	return c
}

func ask(c *controller, method, host, path string) *httptest.ResponseRecorder {
	request := httptest.NewRequest(method, "http://127.0.0.1"+path, strings.NewReader(""))
	request.Host = host
	answer := httptest.NewRecorder()
	c.statusPage().ServeHTTP(answer, request)
	return answer
}

// The page answers GET by names of the machine itself, and nothing else: a page of another
// site cannot read it, whatever its own name resolves to.
func TestStatusPageRefuses(t *testing.T) {
	c := pageOf(t, pagePolicy)
	for _, tc := range []struct {
		method, host, path string
		want               int
	}{
		{"GET", "localhost:8082", "/", 200},
		{"GET", "LOCALHOST", "/", 200},
		{"GET", "127.0.0.1:8082", "/", 200},
		{"GET", "127.1.2.3", "/", 200},
		{"GET", "[::1]:8082", "/", 200},
		{"GET", "[::1]", "/", 200},
		{"GET", "rebound.example.com:8082", "/", 421},
		{"GET", "localhost.example.com", "/", 421},
		{"GET", "127.0.0.1.example.com:8082", "/", 421},
		{"GET", "10.0.0.7:8082", "/", 421},
		{"GET", "0.0.0.0:8082", "/", 421},
		{"GET", "", "/", 421},
		{"HEAD", "localhost:8082", "/", 405},
		{"POST", "localhost:8082", "/", 405},
		{"OPTIONS", "localhost:8082", "/", 405},
		{"DELETE", "localhost:8082", "/", 405},
		{"GET", "localhost:8082", "/metrics", 404},
		{"GET", "localhost:8082", "/debug/pprof/", 404},
	} {
		answer := ask(c, tc.method, tc.host, tc.path)
		if answer.Code != tc.want {
			t.Errorf("%s %s%s: %d, want %d", tc.method, tc.host, tc.path, answer.Code, tc.want)
		}
		if isPage := strings.Contains(answer.Body.String(), "ampbridge sync"); isPage != (tc.want == 200) {
			t.Errorf("%s %s%s shows the page: %t", tc.method, tc.host, tc.path, isPage)
		}
		for name, want := range map[string]string{
			"Content-Security-Policy": "default-src 'none'", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
			"X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer", "Cross-Origin-Resource-Policy": "same-origin",
		} {
			if got := answer.Header().Get(name); !strings.Contains(got, want) {
				t.Errorf("%s %s%s: %s is %q", tc.method, tc.host, tc.path, name, got)
			}
		}
		if got := answer.Header().Get("Access-Control-Allow-Origin"); got != "" {
			t.Errorf("Access-Control-Allow-Origin: %q", got)
		}
	}
}

// What the page says, without a script, a request or markup of others.
func TestStatusPageShows(t *testing.T) {
	now := time.Now()
	subject := policy.Subject{Namespace: "monitoring", ServiceAccount: "prometheus"}
	parsed := policytest.Parse(t, pagePolicy)
	planned := &plan.Plan{SubjectStatuses: []plan.SubjectStatus{
		{Subject: subject, Destination: "central", State: plan.Trusted},
		{
			Subject: policy.Subject{Namespace: "a", ServiceAccount: "b"}, Destination: "central",
			State: plan.CapReached, Message: "the cap is reached",
		},
		{Subject: policy.Subject{Namespace: "c", ServiceAccount: "d"}, State: plan.NotGranted, Message: "no grant covers it"},
	}}
	well := passSeen{at: now.Add(-time.Minute), next: now.Add(time.Minute), policy: parsed, plan: planned, made: 3, inSync: true}
	failed := well
	failed.inSync, failed.plan = false, nil
	failed.lines = []line{{slog.LevelError, "refused: role/x: <script>alert(1)</script>"}, {slog.LevelInfo, "role/y: a note"}}
	var many []line
	for i := range 500 {
		many = append(many, line{slog.LevelError, fmt.Sprintf("failed: line-%d", i)})
	}
	flood := failed
	flood.lines = many
	audited := audit.Seen{
		At: now.Add(-10 * time.Second), Pods: map[audit.Kind]int{audit.Healthy: 4, audit.Missed: 1}, More: 7, Error: "namespace x cannot be read",
		Notable: []audit.SeenPod{{
			Namespace: "team", Name: "prometheus-0", Kind: audit.Missed, Reason: "Missed", Text: "<b>created</b>", Since: now.Add(-time.Hour),
		}},
		Open: []breaker.Workload{{Namespace: "team", Kind: "StatefulSet", Name: "prometheus"}},
	}
	for name, tc := range map[string]struct {
		policy     string
		stands     bool
		pass       *passSeen
		audit      *audit.Seen
		want, lack []string
	}{
		"before the first pass": {want: []string{"No pass has ended yet", "cluster dev"}},
		"a standby":             {stands: true, want: []string{"This process is on standby", "ampbridge-sync"}},
		"in sync": {
			pass: &well, audit: &audited,
			want: []string{
				"AWS is in sync with the policy", "1m0s ago",
				"3 changes were made", "system:serviceaccount:monitoring:prometheus", "the cap is reached",
				"no grant covers it", "You manage its role", "4 healthy", "1 missed", "team/prometheus-0", "and 7 more", "StatefulSet/prometheus",
				"namespace x cannot be read",
			},
			lack: []string{"<b>created"},
		},
		"refused": {
			pass: &failed, want: []string{"AWS is not in sync", "&lt;script&gt;alert(1)&lt;/script&gt;", "a note"}, lack: []string{"<script"},
		},
		"many lines": {pass: &flood, want: []string{"line-99<", "more"}, lack: []string{"line-100<", "line-499"}},
		"a policy that is refused": {
			policy: "kind: Policy\nno-such-field: 1\n", want: []string{"The newest version is refused", "no-such-field"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			text := tc.policy
			if text == "" {
				text = pagePolicy
			}
			c := pageOf(t, text)
			c.leads.Store(!tc.stands)
			if tc.pass != nil {
				c.board.setPass(*tc.pass)
			}
			if tc.audit != nil {
				c.board.setAudit(*tc.audit)
			}
			answer := ask(c, http.MethodGet, "localhost:8082", "/")
			page := answer.Body.String()
			for _, want := range tc.want {
				if !strings.Contains(page, want) {
					t.Errorf("the page lacks %q", want)
				}
			}
			for _, lack := range append(tc.lack, "<script", "http-equiv=\"refresh", "src=\"http", "href=\"http", "<form") {
				if strings.Contains(page, lack) {
					t.Errorf("the page has %q", lack)
				}
			}
			if t.Failed() {
				_, main, _ := strings.Cut(page, "<main>")
				t.Log(main)
			}
		})
	}
}

func TestLoopbackAddress(t *testing.T) {
	for address, want := range map[string]bool{
		"127.0.0.1:8082": true, "localhost:8082": true, "[::1]:8082": true, ":8082": false, "0.0.0.0:8082": false,
		"10.1.2.3:8082": false, "127.0.0.1": false, "example.com:8082": false, "[::]:8082": false,
	} {
		if got := LoopbackAddress(address); got != want {
			t.Errorf("%s: %t, want %t", address, got, want)
		}
	}
}
