//go:build collectors

// Package collectors_test runs programs that are no Prometheus as pods of the modes
// identity and relay: the OpenTelemetry Collector, vmagent and Thanos Ruler, built from
// their modules. They write to AWS's double, and what it stored is compared with what
// they scraped, or evaluated. `make collectors` runs it, and prints the table of
// docs/design/reliability.md: the programs take long to build.
package collectors_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/env"
	"github.com/ampbridge/ampbridge/test/kubelet"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/tools"
)

func TestMain(m *testing.M) {
	kubelet.Init()
	os.Exit(m.Run())
}

const (
	// sessions end within the second outage of STS.
	sessionLife  = time.Minute
	firstOutage  = 20 * time.Second
	secondOutage = 100 * time.Second
	// settled is for how long nothing more may arrive.
	settled = 15 * time.Second
)

// cell is a program in a mode.
type cell struct {
	program string
	mode    policy.Mode
	// args are of the container, config is mounted at /etc/writer/config.yml. What stands
	// in braces is replaced: see [fixture.replace].
	args   []string
	config string

	source *source
	pod    *kubelet.Pod
	// lost are the samples that never arrived, after each outage; restarts likewise.
	lost, restarts [2]int
}

func (c *cell) name() string { return c.program + "-" + string(c.mode) }

const scrape = `
scrape_configs:
- {job_name: {cell}, scrape_interval: 1s, metrics_path: /{cell}, static_configs: [{targets: ["{target}"]}]}
`

const rules = `
groups: [{name: counted, interval: 1s, rules: [{record: counted, expr: counted, labels: {job: {cell}}}]}]
`

func cells() []*cell {
	vmagent := []string{"-promscrape.config=/etc/writer/config.yml", "-remoteWrite.tmpDataPath=/tmp/vmagent", "-remoteWrite.forcePromProto",
		// Several queues send side by side, and AMP refuses what comes out of order.
		"-remoteWrite.queues=1", "-httpListenAddr=127.0.0.1:{port}"}
	thanos := []string{"--data-dir=/tmp/thanos", "--rule-file=/etc/writer/config.yml", "--eval-interval=1s", "--query=http://{target}",
		"--http-address=127.0.0.1:{port}", "--grpc-address=127.0.0.1:{port2}", `--label=ruler="a"`}
	return []*cell{
		{program: "vmagent", mode: policy.ModeIdentity, config: scrape, args: append([]string{
			"-remoteWrite.url={url}", "-remoteWrite.aws.useSigv4", "-remoteWrite.aws.region=" + env.Region,
			"-remoteWrite.aws.stsEndpoint=$(AWS_ENDPOINT_URL_STS)"}, vmagent...)},
		{program: "vmagent", mode: policy.ModeRelay, config: scrape, args: append([]string{"-remoteWrite.url=$(AMPBRIDGE_REMOTE_WRITE_URL)",
			"-remoteWrite.basicAuth.username=$(AMPBRIDGE_REMOTE_WRITE_USERNAME)",
			"-remoteWrite.basicAuth.passwordFile=$(AMPBRIDGE_REMOTE_WRITE_PASSWORD_FILE)"}, vmagent...)},
		{program: "thanos", mode: policy.ModeIdentity, config: rules, args: append([]string{"rule",
			`--remote-write.config={remote_write: [{url: "{url}", sigv4: {region: ` + env.Region + `}}]}`}, thanos...)},
		{program: "thanos", mode: policy.ModeRelay, config: rules, args: append([]string{"rule",
			`--remote-write.config={remote_write: [{url: "$(AMPBRIDGE_REMOTE_WRITE_URL)", basic_auth: {` +
				`username: $(AMPBRIDGE_REMOTE_WRITE_USERNAME), password_file: $(AMPBRIDGE_REMOTE_WRITE_PASSWORD_FILE)}}]}`}, thanos...)},
		{program: "otelcol", mode: policy.ModeIdentity, args: []string{"--config=/etc/writer/config.yml"}, config: `
receivers:
  prometheus:
    config:` + strings.ReplaceAll(scrape, "\n", "\n      ") + `
extensions:
  sigv4auth: {region: ` + env.Region + `, service: aps}
exporters:
  prometheusremotewrite: {endpoint: "{url}", auth: {authenticator: sigv4auth}}
service:
  telemetry: {metrics: {level: none}}
  extensions: [sigv4auth]
  pipelines: {metrics: {receivers: [prometheus], exporters: [prometheusremotewrite]}}
`},
	}
}

// source is what a cell scrapes, or evaluates: a number that grows by one each time.
type source struct {
	mu sync.Mutex
	n  int
}

func (s *source) next() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n++
	return s.n
}

func (s *source) last() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n
}

type fixture struct {
	*env.Env
	cells []*cell
}

// TestOutagesOfSTS: a row of the table for each program and mode.
func TestOutagesOfSTS(t *testing.T) {
	f := &fixture{env.Start(t, env.Options{Progress: os.Stderr}), chosen(cells())}
	ctx := t.Context()
	f.Cloud.SetSessionLife(sessionLife)
	testkit.Must(t, f.SetPolicy(f.policy()))
	for _, c := range f.cells {
		c.source = &source{}
		testkit.Must(t, f.CreateServiceAccount(ctx, env.Namespace, c.name()))
	}
	out, err := f.Sync(ctx)
	if err != nil {
		t.Fatal(out, err)
	}
	for _, program := range []string{"vmagent", "thanos", "otelcol"} {
		if contains(f.cells, program) {
			f.AddImage(kubelet.Image{Match: "example/" + program, Binaries: map[string]string{"/bin/" + program: tools.Path(t, program)},
				Entrypoint: []string{"/bin/" + program}, User: 65534})
		}
	}

	down := f.Cloud.Fail("sts:*", awstest.Refuse)
	for i, c := range f.cells {
		f.start(t, i, c)
	}
	time.Sleep(firstOutage)
	down.Stop()
	f.account(t, 0)

	down = f.Cloud.Fail("sts:*", awstest.Refuse)
	time.Sleep(secondOutage)
	down.Stop()
	f.account(t, 1)

	t.Logf("| program | mode | STS down at the start | STS down later, for longer than a session lasts |\n| --- | --- | --- | --- |")
	for _, c := range f.cells {
		t.Logf("| %s | %s | %s | %s |", c.program, c.mode, c.text(0), c.text(1))
		if c.mode == policy.ModeRelay && (c.lost != [2]int{} || c.restarts != [2]int{}) {
			t.Errorf("%s: lost %v, restarts %v: the relay answers 503, and a program that retries loses nothing", c.name(), c.lost, c.restarts)
		}
	}
}

// chosen are the cells of the programs in $COLLECTORS; without it all are.
func chosen(all []*cell) (some []*cell) {
	for _, c := range all {
		if only := os.Getenv("COLLECTORS"); only == "" || strings.Contains(only, c.program) {
			some = append(some, c)
		}
	}
	return some
}

func contains(cells []*cell, program string) bool {
	for _, c := range cells {
		if c.program == program {
			return true
		}
	}
	return false
}

// policy grants each cell its mode. The programs call STS over loopback.
func (f *fixture) policy() string {
	head, _, _ := strings.Cut(f.Policy(), "grants:\n")
	var b strings.Builder
	b.WriteString(head + "grants:\n")
	for _, c := range f.cells {
		fmt.Fprintf(&b, "- {namespaces: [%s], serviceAccounts: [%s], destinations: [central], mode: %s}\n", env.Namespace, c.name(), c.mode)
	}
	fmt.Fprintf(&b, "sts: {endpoint: %q}\ntrust: {permissionsBoundary: \"arn:aws:iam::%s:policy/ampbridge-boundary\"}\n",
		f.Cloud.URL, env.AccountID)
	return b.String()
}

// start creates the pod of a cell through the API server, and runs it as a kubelet does.
func (f *fixture) start(t *testing.T, i int, c *cell) {
	t.Helper()
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/" + c.name():
			_, _ = fmt.Fprintf(w, "counted %d\n", c.source.next()) // a scraper that is gone misses a sample of its own
		case "/api/v1/query":
			_, _ = fmt.Fprintf(w, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[%d,"%d"]}]}}`,
				time.Now().Unix(), c.source.next())
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(target.Close)
	var ports [2]int
	for i := range ports {
		var err error
		ports[i], err = testkit.UnusedPort()
		testkit.Must(t, err)
	}
	replace := strings.NewReplacer("{cell}", c.name(), "{target}", strings.TrimPrefix(target.URL, "http://"),
		"{url}", f.Workspace.RemoteWriteURL(f.Cloud.URL), "{port}", fmt.Sprint(ports[0]), "{port2}", fmt.Sprint(ports[1]))
	var args []string
	for _, a := range c.args {
		args = append(args, replace.Replace(a))
	}
	ctx := t.Context()
	client := f.Cluster.Client().CoreV1()
	_, err := client.ConfigMaps(env.Namespace).Create(ctx, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: c.name()}, Data: map[string]string{"config.yml": replace.Replace(c.config)},
	}, metav1.CreateOptions{})
	testkit.Must(t, err)
	// All pods share the host's network here: one that names a port leaves it to the others.
	taken := ""
	for other := range i {
		taken += fmt.Sprintf(" %d %d", []int{24095, 25095, 26095, 27095, 28095}[other], []int{9095, 19095, 29095, 19195, 29195}[other])
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: c.name(), Annotations: map[string]string{policy.AnnotationContainer: "writer"}},
		Spec: corev1.PodSpec{
			ServiceAccountName: c.name(),
			Containers: []corev1.Container{{
				Name: "writer", Image: "example/" + c.program + ":v1", Args: args, Env: []corev1.EnvVar{{Name: "TAKEN", Value: taken}},
				VolumeMounts: []corev1.VolumeMount{{Name: "config", MountPath: "/etc/writer"}},
			}},
			Volumes: []corev1.Volume{{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
				LocalObjectReference: corev1.LocalObjectReference{Name: c.name()}}}}},
		},
	}
	// The webhook reads its policy every few seconds.
	testkit.Within(t, time.Minute, c.name()+" is injected", func() bool {
		tried, err := client.Pods(env.Namespace).Create(ctx, pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		testkit.Must(t, err)
		return tried.Annotations["ampbridge.io/injected"] != ""
	})
	pod, err = client.Pods(env.Namespace).Create(ctx, pod, metav1.CreateOptions{})
	testkit.Must(t, err)
	c.pod, err = f.Run(ctx, pod, nil)
	testkit.Must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			logs := c.pod.Container("writer").Logs()
			t.Logf("%s:\n%s", c.name(), logs[max(0, len(logs)-3000):])
		}
		if err := c.pod.Close(); err != nil {
			t.Error(err)
		}
	})
}

// account waits until what each cell scraped before STS came back has arrived, or nothing
// more does, and counts what is lost.
func (f *fixture) account(t *testing.T, outage int) {
	t.Helper()
	var group sync.WaitGroup
	for _, c := range f.cells {
		group.Go(func() {
			ended := c.source.last()
			highest, stored, since := 0, 0, time.Now()
			for time.Since(since) < settled || highest <= ended {
				h, s := f.stored(t.Context(), c)
				if s-stored > h-highest { // more than the new ones
					since = time.Now()
				}
				if highest, stored = h, s; time.Since(since) > 3*time.Minute {
					t.Errorf("%s: nothing newer than %d arrives after outage %d: %d of %d", c.name(), ended, outage+1, stored, highest)
					return
				}
				time.Sleep(time.Second)
			}
			earlier := 0
			if outage > 0 {
				earlier = c.lost[0]
			}
			c.lost[outage] = highest - stored - earlier
			c.restarts[outage] = c.pod.Container("writer").Restarts()
			if outage > 0 {
				c.restarts[outage] -= c.restarts[0]
			}
		})
	}
	group.Wait()
}

// stored returns the highest number that arrived, and how many numbers did.
func (f *fixture) stored(ctx context.Context, c *cell) (highest, count int) {
	for i, function := range []string{"max_over_time", "count_over_time"} {
		samples, err := f.Cloud.Query(ctx, f.Workspace.ID, fmt.Sprintf(`max(%s(counted{job=%q}[1h]))`, function, c.name()))
		if err == nil && len(samples) > 0 {
			*[]*int{&highest, &count}[i] = int(samples[0].Value)
		}
	}
	return highest, count
}

// text is a cell of the table.
func (c *cell) text(outage int) string {
	text := "nothing is lost"
	if n := c.lost[outage]; n > 0 {
		text = fmt.Sprintf("%d samples are lost", n)
	}
	if n := c.restarts[outage]; n > 0 {
		text += fmt.Sprintf("; the program exits, and is restarted %d times", n)
	}
	return text
}
