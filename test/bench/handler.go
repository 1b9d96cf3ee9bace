package main

import (
	"context"
	"crypto/tls"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/ampbridge/ampbridge/test/servingcert"
)

//go:embed testdata/pod-prometheus-operator.json
var operatorPod []byte

//go:embed testdata/policy.yaml
var policyFile []byte

const uid = "705ab4f5-6393-11e8-b7cc-42010a800002"

const (
	// Slices of the two servers alternate, so that what else the machine does
	// hits both.
	rounds = 6
	slice  = 500 * time.Millisecond
)

// measureHandler compares the webhook over HTTPS, its look-ups answered in
// memory, with a server that answers a constant.
func measureHandler(ctx context.Context, dir string, r *report) error {
	ca, err := servingcert.Write(dir, "127.0.0.1")
	if err != nil {
		return err
	}
	policyPath := filepath.Join(dir, "policy.yaml")
	if err := os.WriteFile(policyPath, policyFile, 0o600); err != nil {
		return err
	}
	body, err := reviewOf(operatorPod)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	var addrs [4]string
	for i := range addrs {
		if addrs[i], err = freeAddr(); err != nil {
			return err
		}
	}
	real, err := startChild(self, "serve-webhook", "-addr="+addrs[0], "-health-addr="+addrs[1], "-metrics-addr="+addrs[2], "-cert-dir="+dir, "-policy="+policyPath)
	if err != nil {
		return err
	}
	defer real.stop()
	if err := real.until("ready", func() bool { return answers("http://" + addrs[1] + "/readyz") }); err != nil {
		return err
	}
	realURL, constantURL := "https://"+addrs[0]+"/pods/enabled", "https://"+addrs[3]+"/"
	size, err := post(ctx, newClient(ca, true, 1), realURL, body)
	if err != nil {
		return err
	}
	constant, err := startChild(self, "serve-constant", "-addr="+addrs[3], "-cert-dir="+dir, fmt.Sprintf("-size=%d", size))
	if err != nil {
		return err
	}
	defer constant.stop()
	if err := constant.until("listening", func() bool {
		conn, err := (&tls.Dialer{NetDialer: &net.Dialer{}, Config: &tls.Config{InsecureSkipVerify: true}}).DialContext(ctx, "tcp", addrs[3])
		return err == nil && conn.Close() == nil
	}); err != nil {
		return err
	}

	r.line("handler over HTTPS, service account in memory; request %d bytes, answer %d bytes", len(body), size)
	r.line("%-9s %7s  %28s  %28s  %6s  %5s", "", "clients", "webhook req/s, p50, p99 ms", "constant req/s, p50, p99 ms", "ratio", "CPU")
	for _, protocol := range []struct {
		name   string
		http2  bool
		budget float64
	}{{"HTTP/2", true, 0.7}, {"HTTP/1.1", false, 0.6}} {
		for _, clients := range []int{1, 8, 32} {
			var ours, limit load
			client := newClient(ca, protocol.http2, clients)
			for round := range rounds + 1 {
				for _, side := range []struct {
					server *child
					url    string
					sum    *load
				}{{real, realURL, &ours}, {constant, constantURL, &limit}} {
					some, err := metered(side.server, func() (load, error) {
						return drive(ctx, client, side.url, body, clients, slice)
					})
					if err != nil {
						return err
					}
					if round > 0 { // the first warms up
						side.sum.add(some)
					}
				}
			}
			client.CloseIdleConnections()
			ratio := ours.rate() / limit.rate()
			verdict := ""
			if clients > 1 {
				verdict = r.judge(ratio >= protocol.budget, "≥ %.1f", protocol.budget)
			}
			r.line("%-9s %7d  %12.0f %7s %7s  %12.0f %7s %7s  %6.2f  %5.2f  %s", protocol.name, clients,
				ours.rate(), ms(ours.quantile(.5)), ms(ours.quantile(.99)), limit.rate(), ms(limit.quantile(.5)), ms(limit.quantile(.99)), ratio, float64(limit.cost())/float64(ours.cost()), verdict)
		}
	}
	return nil
}

// metered adds the processor time that the clients and the server take.
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
		theirs, err := server.cpu()
		if err != nil {
			return result, err
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

// reviewOf wraps a pod in the review that the API server sends of it.
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
			"uid": uid, "kind": kind, "resource": resource, "requestKind": kind, "requestResource": resource,
			"name": "prometheus-k8s-0", "namespace": "monitoring", "operation": "CREATE",
			"userInfo": map[string]any{"username": "system:serviceaccount:kube-system:statefulset-controller", "groups": []string{"system:serviceaccounts", "system:authenticated"}},
			"object":   object, "oldObject": nil, "dryRun": false,
			"options": map[string]any{"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
		},
	})
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f", float64(d)/float64(time.Millisecond)) }

// report is the table that people read.
type report struct {
	out io.Writer
}

func (r *report) line(format string, args ...any) {
	// A table that cannot be written is seen to be missing.
	_, _ = fmt.Fprintf(r.out, format+"\n", args...)
}

// judge puts a budget beside a figure.
func (r *report) judge(ok bool, budget string, args ...any) string {
	word := "pass"
	if !ok {
		word = "FAIL"
	}
	return fmt.Sprintf("budget "+budget+": %s", append(args, word)...)
}
