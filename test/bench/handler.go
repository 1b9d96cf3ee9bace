package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/servingcert"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/webhook/registration"
)

//go:embed testdata/pod-prometheus-operator.json
var operatorPod []byte

//go:embed testdata/policy.yaml
var policyFile []byte

const uid = "705ab4f5-6393-11e8-b7cc-42010a800002"

// The servers run in alternating slices, so that other load on the machine affects all of them.
const rounds = 6

// slice is how long a server is measured without a break. Tests need no figures and set less.
var slice = 500 * time.Millisecond

// webhookPath is the path of the measured handler and of the constant one.
const webhookPath = registration.PodPath + string(policy.InjectionEnabled)

// side is one of the compared servers.
type side struct {
	server *child
	url    string
}

// startSides starts servers. The first is the webhook; the answers of the others have the same
// size.
func startSides(ctx context.Context, dir, profile string, ca, body []byte, kinds ...string) (sides []side, size int, err error) {
	defer func() {
		if err != nil {
			stopAll(sides)
		}
	}()
	policyPath := filepath.Join(dir, "policy.yaml")
	if err := os.WriteFile(policyPath, policyFile, 0o600); err != nil {
		return nil, 0, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, 0, err
	}
	health, err := testkit.UnusedAddr("127.0.0.1")
	if err != nil {
		return nil, 0, err
	}
	metrics, err := testkit.UnusedAddr("127.0.0.1")
	if err != nil {
		return nil, 0, err
	}
	client := newClient(ca, true, 1)
	defer client.CloseIdleConnections()
	for _, kind := range kinds {
		addr, err := testkit.UnusedAddr("127.0.0.1")
		if err != nil {
			return sides, 0, err
		}
		server, err := startChild(self, kind, "-addr="+addr, "-cert-dir="+dir, "-profile="+profile,
			"-health-addr="+health, "-metrics-addr="+metrics, "-policy="+policyPath, fmt.Sprintf("-size=%d", size))
		if err != nil {
			return sides, 0, err
		}
		s := side{server, "https://" + addr + webhookPath}
		sides = append(sides, s)
		if err := server.until("answers", func() bool {
			n, err := post(ctx, client, s.url, body)
			size = max(size, n)
			return err == nil
		}); err != nil {
			return sides, 0, err
		}
	}
	return sides, size, nil
}

func stopAll(sides []side) {
	for _, s := range sides {
		s.server.stop()
	}
}

// measureHandler compares the webhook over HTTPS, with look-ups answered in memory, with servers
// that return a constant.
func measureHandler(ctx context.Context, dir, profile string, r *report) error {
	ca, err := servingcert.Write(dir, "127.0.0.1")
	if err != nil {
		return err
	}
	body, err := reviewOf(operatorPod)
	if err != nil {
		return err
	}
	sides, size, err := startSides(ctx, dir, profile, ca, body, "serve-webhook", "serve-constant", "serve-plain")
	if err != nil {
		return err
	}
	defer stopAll(sides)

	r.line("handler over HTTPS, service account in memory; request %d bytes, answer %d bytes", len(body), size)
	r.line("%-9s %7s  %24s  %24s  %5s  %5s  %24s  %5s", "", "", "webhook", "constant", "", "", "plain", "")
	r.line(
		"%-9s %7s%s  %5s  %5s%[3]s  %5s",
		"",
		"clients",
		strings.Repeat(fmt.Sprintf("  %8s %7s %7s", "req/s", "p50 ms", "p99 ms"), 2),
		"ratio",
		"CPU",
		"ratio",
	)
	for _, protocol := range []struct {
		name   string
		http2  bool
		budget float64
	}{{"HTTP/2", true, 0.7}, {"HTTP/1.1", false, 0.5}} {
		for _, clients := range []int{1, 8, 32} {
			client := newClient(ca, protocol.http2, clients)
			loads, err := alternate(ctx, []turn{{sides[0], client}, {sides[1], client}, {sides[2], client}}, body, clients)
			if err != nil {
				return err
			}
			ours, limit, plain := loads[0], loads[1], loads[2]
			ratio := ours.rate() / limit.rate()
			verdict := ""
			if clients > 1 {
				verdict = r.judge(ratio >= protocol.budget, "≥ %.1f", protocol.budget)
			}
			r.line("%-9s %7d%s%s  %5.2f  %5.2f%s  %5.2f  %s", protocol.name, clients,
				ours, limit, ratio, float64(limit.cost())/float64(ours.cost()), plain, ours.rate()/plain.rate(), verdict)
		}
	}
	return nil
}

// turn is a server and its client.
type turn struct {
	side
	client *http.Client
}

// alternate runs the servers in turns. The first round is a warm-up.
func alternate(ctx context.Context, turns []turn, body []byte, clients int) ([]*load, error) {
	loads := make([]*load, len(turns))
	defer func() {
		for _, t := range turns {
			t.client.CloseIdleConnections()
		}
	}()
	for i := range loads {
		loads[i] = &load{}
	}
	for round := range rounds + 1 {
		for i, t := range turns {
			some, err := metered(t.server, func() (load, error) {
				return drive(ctx, t.client, t.url, body, clients, slice)
			})
			if err != nil {
				return nil, err
			}
			if round > 0 {
				loads[i].add(some)
			}
		}
	}
	return loads, nil
}

// metered adds the processor time of the clients and the server. A nil server is another program's.
func metered(server *child, measure func() (load, error)) (load, error) {
	var spent [2]time.Duration
	var result load
	for i := range spent {
		if i == 1 {
			var err error
			if result, err = measure(); err != nil {
				return result, err
			}
		}
		var theirs time.Duration
		if server != nil {
			var err error
			if theirs, err = server.cpu(); err != nil {
				return result, err
			}
		}
		own, err := ownCPU()
		if err != nil {
			return result, err
		}
		spent[i] = theirs + own
	}
	result.cpu = spent[1] - spent[0]
	return result, nil
}

// reviewOf returns the review of a pod as the API server sends it.
func reviewOf(pod []byte) ([]byte, error) {
	var object map[string]any
	if err := json.Unmarshal(pod, &object); err != nil {
		return nil, err
	}
	resource := map[string]any{"group": "", "version": "v1", "resource": "pods"}
	kind := map[string]any{"group": "", "version": "v1", "kind": "Pod"}
	return json.Marshal(map[string]any{
		"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
		"request": map[string]any{
			"uid":             uid,
			"kind":            kind,
			"resource":        resource,
			"requestKind":     kind,
			"requestResource": resource,
			"name":            "prometheus-k8s-0",
			"namespace":       "monitoring",
			"operation":       "CREATE",
			"userInfo": map[string]any{
				"username": "system:serviceaccount:kube-system:statefulset-controller",
				"groups":   []string{"system:serviceaccounts", "system:authenticated"},
			},
			"object":    object,
			"oldObject": nil,
			"dryRun":    false,
			"options":   map[string]any{"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
		},
	})
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f", float64(d)/float64(time.Millisecond)) }

// report is the table for the user.
type report struct {
	out io.Writer
}

func (r *report) line(format string, args ...any) {
	// The user notices a table that cannot be written.
	_, _ = fmt.Fprintf(r.out, format+"\n", args...)
}

// judge compares a figure with its budget and returns the text for the table.
func (r *report) judge(ok bool, budget string, args ...any) string {
	word := "pass"
	if !ok {
		word = "FAIL"
	}
	return fmt.Sprintf("budget "+budget+": %s", append(args, word)...)
}
