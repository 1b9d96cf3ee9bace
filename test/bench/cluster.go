package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/test/cluster"
	"github.com/ampbridge/ampbridge/test/servingcert"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/webhook/registration"
)

const (
	namespace = "monitoring"
	account   = "prometheus-k8s"
	// podsMeasured is how many pods are created for a quantile.
	podsMeasured = 300
	few          = 100
	// fillingTime limits the creation of the many service accounts.
	fillingTime = 100 * time.Second
	writers     = 32
	// Budgets.
	ownTimeBudget = 10 * time.Millisecond
	memoryBudget  = 40.0 // MB
	flatness      = 4.0  // MB that memory may differ between few and many accounts
)

// measureCluster runs the webhook's own program with a real API server.
func measureCluster(ctx context.Context, dir string, accounts int, r *report) error {
	program, err := buildShipped(ctx, dir, "ampbridge")
	if err != nil {
		return err
	}
	c, err := cluster.New(ctx, cluster.Options{Progress: os.Stderr})
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }() // an error only leaves temporary files
	m, err := startMeasured(ctx, dir, program, c)
	if err != nil {
		return err
	}
	defer m.child.stop()

	if err := m.fill(ctx, few, 0); err != nil {
		return err
	}
	if err := m.createPods(ctx, 50); err != nil { // warms up connections and heap
		return err
	}
	before, err := m.histogram()
	if err != nil {
		return err
	}
	if err := m.createPods(ctx, podsMeasured); err != nil {
		return err
	}
	after, err := m.histogram()
	if err != nil {
		return err
	}
	own := after.minus(before)
	p99 := own.quantile(.99)
	r.line("")
	r.line("the webhook's own time through the API server, %d pods one at a time: p50 %s ms, p99 %s ms  %s", int(own.count()),
		ms(own.quantile(.5)), ms(p99), r.judge(p99 <= ownTimeBudget, "p99 ≤ %s", ownTimeBudget))

	atFew, err := m.child.resident()
	if err != nil {
		return err
	}
	r.line("resident memory with %6d service accounts: %s  %s", few, atFew, r.judge(atFew.all <= memoryBudget, "≤ %.0f MB", memoryBudget))
	start := time.Now()
	filling, cancel := context.WithTimeout(ctx, fillingTime)
	defer cancel()
	if err := m.fill(filling, accounts, few); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if err := m.createPods(ctx, podsMeasured); err != nil {
		return err
	}
	atMany, err := m.child.resident()
	if err != nil {
		return err
	}
	r.line(
		"resident memory with %6d service accounts: %s  %s",
		m.filled.Load(),
		atMany,
		r.judge(atMany.all <= memoryBudget && math.Abs(atMany.all-atFew.all) <= flatness, "≤ %.0f MB, flat", memoryBudget),
	)
	if n := m.filled.Load(); n < int64(accounts) {
		r.line("(%d service accounts were requested; after %s there were %d)", accounts, time.Since(start).Round(time.Second), n)
	}
	return nil
}

// measured is a webhook that is registered in a cluster.
type measured struct {
	client  kubernetes.Interface
	child   *child
	metrics string
	pod     *corev1.Pod
	filled  atomic.Int64
}

func startMeasured(ctx context.Context, dir, program string, c *cluster.Cluster) (_ *measured, err error) {
	ca, err := servingcert.Write(dir, "127.0.0.1")
	if err != nil {
		return nil, err
	}
	policyPath := filepath.Join(dir, "policy.yaml")
	if err := os.WriteFile(policyPath, policyFile, 0o600); err != nil {
		return nil, err
	}
	var addrs [3]string
	for i := range addrs {
		if addrs[i], err = testkit.UnusedAddr("127.0.0.1"); err != nil {
			return nil, err
		}
	}
	config := c.Config()
	config.WarningHandlerWithContext = rest.NoWarnings{}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	m := &measured{client: client, metrics: "http://" + addrs[2] + "/metrics", pod: &corev1.Pod{}}
	if m.child, err = startChild(
		program,
		"webhook",
		"--kubeconfig="+c.Kubeconfig(),
		"--policy="+policyPath,
		"--cert-dir="+dir,
		"--image="+image,
		"--addr="+addrs[0],
		"--health-addr="+addrs[1],
		"--metrics-addr="+addrs[2],
		"--drain-delay=0",
	); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			m.child.stop()
		}
	}()
	if err := m.child.until("ready", func() bool { return answers("http://" + addrs[1] + "/readyz") }); err != nil {
		return nil, err
	}
	configuration, err := registration.New(registration.Options{
		ClientConfig: admissionv1.WebhookClientConfig{URL: new("https://" + addrs[0]), CABundle: ca},
	})
	if err != nil {
		return nil, err
	}
	if _, err := m.client.AdmissionregistrationV1().MutatingWebhookConfigurations().Create(
		ctx,
		configuration,
		metav1.CreateOptions{},
	); err != nil {
		return nil, err
	}
	if err := c.Namespace(ctx, namespace, map[string]string{policy.LabelInjection: string(policy.InjectionEnabled)}); err != nil {
		return nil, err
	}
	if _, err := m.client.CoreV1().ServiceAccounts(
		namespace,
	).Create(
		ctx,
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: account}},
		metav1.CreateOptions{},
	); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(operatorPod, m.pod); err != nil {
		return nil, err
	}
	m.pod.Name, m.pod.OwnerReferences, m.pod.Spec.Hostname = "", nil, ""
	return m, m.child.until("the API server calls the webhook", func() bool {
		pod, err := m.create(ctx)
		return err == nil && isInjected(pod)
	})
}

func (m *measured) create(ctx context.Context) (*corev1.Pod, error) {
	return m.client.CoreV1().Pods(namespace).Create(ctx, m.pod, metav1.CreateOptions{})
}

func (m *measured) createPods(ctx context.Context, n int) error {
	for range n {
		pod, err := m.create(ctx)
		if err != nil {
			return err
		}
		if !isInjected(pod) {
			return errors.New("a pod was not injected: the figures would be wrong")
		}
	}
	return nil
}

func isInjected(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == sidecarconfig.ContainerName })
}

// fill creates service accounts until there are n of them, with a thousand in each namespace.
func (m *measured) fill(ctx context.Context, n, have int) error {
	const perNamespace = 1000
	group, failing := errgroup.WithContext(ctx)
	group.SetLimit(writers)
	for i := have; i < n && failing.Err() == nil; i++ {
		ns := fmt.Sprintf("accounts-%d", i/perNamespace)
		if i%perNamespace == 0 {
			if _, err := m.client.CoreV1().Namespaces().Create(
				ctx,
				&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}},
				metav1.CreateOptions{},
			); err != nil {
				return errors.Join(err, group.Wait())
			}
		}
		group.Go(func() error {
			object := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("account-%d", i)}}
			_, err := m.client.CoreV1().ServiceAccounts(ns).Create(ctx, object, metav1.CreateOptions{})
			if err == nil {
				m.filled.Add(1)
			}
			return err
		})
	}
	return cmp.Or(group.Wait(), ctx.Err())
}

// histogram is the cumulative count of requests by the upper limit of their duration in seconds.
type histogram []bucket

type bucket struct{ le, count float64 }

var bucketLine = regexp.MustCompile(`^ampbridge_admission_duration_seconds_bucket\{resource="pod",le="([^"]+)"\} ([0-9.e+]+)$`)

func (m *measured) histogram() (histogram, error) {
	answer, err := http.Get(m.metrics)
	if err != nil {
		return nil, err
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, err
	}
	var h histogram
	for line := range strings.Lines(string(text)) {
		match := bucketLine.FindStringSubmatch(strings.TrimSpace(line))
		if match == nil {
			continue
		}
		le, leErr := strconv.ParseFloat(match[1], 64)
		count, countErr := strconv.ParseFloat(match[2], 64)
		if err := errors.Join(leErr, countErr); err != nil {
			return nil, err
		}
		h = append(h, bucket{le, count})
	}
	if len(h) == 0 {
		return nil, errors.New("the webhook shows no ampbridge_admission_duration_seconds")
	}
	return h, nil
}

func (h histogram) minus(earlier histogram) histogram {
	d := slices.Clone(h)
	for i := range d {
		d[i].count -= earlier[i].count
	}
	return d
}

func (h histogram) count() float64 { return h[len(h)-1].count }

// quantile interpolates inside a bucket, as PromQL's histogram_quantile does.
func (h histogram) quantile(q float64) time.Duration {
	rank := q * h.count()
	var low bucket
	for _, b := range h {
		if b.count >= rank {
			if math.IsInf(b.le, 1) || b.count == low.count {
				return seconds(low.le)
			}
			return seconds(low.le + (b.le-low.le)*(rank-low.count)/(b.count-low.count))
		}
		low = b
	}
	return seconds(low.le)
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
