//go:build collectors

// Package collectors_test runs programs that are no Prometheus as pods of the modes
// identity and relay: the OpenTelemetry Collector, vmagent and Thanos Ruler, built from
// their modules. They write to AWS's double, and what it stored is compared with what
// they scraped, or evaluated. `make collectors` runs it, and prints the table of
// docs/design/reliability.md: the programs take long to build.
package collectors_test

import (
	"bufio"
	"cmp"
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

	"go.yaml.in/yaml/v4"

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
	// settled is for how long nothing more may arrive. Thanos reads its write-ahead log every 15 s.
	settled = 20 * time.Second
)

// cell is a program in a mode.
type cell struct {
	program string
	// mode is empty for a control: a pod that ampbridge leaves alone, with an access key of
	// its own.
	mode policy.Mode
	// snippet is the output of `ampbridge config` that the pod is made from: its annotations,
	// and what of args or configuration concerns AMP. Empty: config and args have it all.
	snippet string
	// args are of the container, config is mounted at /etc/writer/config.yml. What stands
	// in braces is replaced: see [fixture.start].
	args   []string
	config string
	// skips is how many numbers the program may leave unwritten after its first start, with
	// ampbridge or without: see docs/design/reliability.md.
	skips int

	source        *source
	pod           *kubelet.Pod
	containerName string
	// first is the lowest number that arrived.
	first int
	// lost are the samples since the first that never arrived, after each outage; restarts
	// likewise.
	lost, restarts [2]int
}

func (c *cell) name() string { return c.program + "-" + cmp.Or(string(c.mode), "control") }

const scrape = `
scrape_configs:
- {job_name: {cell}, scrape_interval: 1s, metrics_path: /{cell}, static_configs: [{targets: ["{target}"]}]}
`

const rules = `
groups: [{name: counted, interval: 1s, rules: [{record: counted, expr: counted, labels: {job: {cell}}}]}]
`

var collector = `
receivers:
  prometheus:
    config:` + strings.ReplaceAll(scrape, "\n", "\n      ") + `
service:
  telemetry: {metrics: {level: none}}
  pipelines: {metrics: {receivers: [prometheus], exporters: [prometheusremotewrite]}}
`

func cells() []*cell {
	vmagent := []string{"-promscrape.config=/etc/writer/config.yml", "-remoteWrite.tmpDataPath=/tmp/vmagent",
		"-httpListenAddr=127.0.0.1:{port}"}
	otelcol := []string{"--config=/etc/writer/config.yml", "--config=/etc/writer/snippet"}
	thanos := func(write string) []string {
		return []string{"rule", "--data-dir=/tmp/thanos", "--rule-file=/etc/writer/config.yml", "--eval-interval=1s",
			"--query=http://{target}", "--http-address=127.0.0.1:{port}", "--grpc-address=127.0.0.1:{port2}",
			`--label=ruler="a"`, "--remote-write.config={remote_write: [" + write + "]}"}
	}
	signs := `{url: "{url}", sigv4: {region: ` + env.Region + `}}`
	all := []*cell{
		{program: "vmagent", mode: policy.ModeIdentity, snippet: "vmagent", config: scrape, args: vmagent},
		{program: "vmagent", mode: policy.ModeRelay, snippet: "vmagent", config: scrape, args: vmagent},
		{program: "thanos", mode: policy.ModeIdentity, config: rules, args: thanos(signs)},
		{program: "thanos", mode: policy.ModeRelay, config: rules, args: thanos(`{url: "$(AMPBRIDGE_REMOTE_WRITE_URL)", ` +
			`basic_auth: {username: $(AMPBRIDGE_REMOTE_WRITE_USERNAME), ` +
			`password_file: $(AMPBRIDGE_REMOTE_WRITE_PASSWORD_FILE)}}`)},
		{program: "thanos", config: rules, args: thanos(signs)},
		{program: "otelcol", mode: policy.ModeIdentity, snippet: "opentelemetry", config: collector, args: otelcol},
		{program: "otelcol", mode: policy.ModeRelay, snippet: "opentelemetry", config: collector, args: otelcol},
	}
	for _, c := range all {
		if c.program == "thanos" {
			// It opens its remote write before its write-ahead log, may find none, and looks again five
			// seconds later: what it evaluated by then is never sent.
			c.skips = 10
		}
	}
	return all
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
	built := map[string]bool{}
	for _, c := range f.cells {
		if !built[c.program] {
			built[c.program] = true
			path := "/bin/" + c.program
			f.AddImage(kubelet.Image{Match: "example/" + c.program, Entrypoint: []string{path}, User: 65534,
				Binaries: map[string]string{path: tools.Path(t, c.program)}})
		}
	}

	down := f.Cloud.Fail("sts:*", awstest.Refuse)
	for _, c := range f.cells {
		f.start(t, c)
	}
	time.Sleep(firstOutage)
	down.Stop()
	f.account(t, 0)

	down = f.Cloud.Fail("sts:*", awstest.Refuse)
	time.Sleep(secondOutage)
	down.Stop()
	f.account(t, 1)

	t.Logf("| program | mode | STS down at the start, %s | STS down later, %s |\n| --- | --- | --- | --- |", firstOutage, secondOutage)
	for _, c := range f.cells {
		t.Logf("| %s | %s | %s | %s |", c.program, cmp.Or(string(c.mode), "without ampbridge"), c.text(0), c.text(1))
		if c.mode != policy.ModeIdentity && (c.lost != [2]int{} || c.restarts != [2]int{}) {
			t.Errorf("%s: lost %v, restarts %v: it does not depend on STS, and retries, so it loses nothing",
				c.name(), c.lost, c.restarts)
		}
		if skipped := c.first - 1; skipped > c.skips {
			t.Errorf("%s: the first %d numbers did not arrive, want %d at the most", c.name(), skipped, c.skips)
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

// policy grants each cell its mode. The programs call STS over loopback.
func (f *fixture) policy() string {
	head, _, _ := strings.Cut(f.Policy(), "grants:\n")
	var b strings.Builder
	b.WriteString(head + "grants:\n")
	for _, c := range f.cells {
		if c.mode == "" {
			continue
		}
		fmt.Fprintf(&b, "- {namespaces: [%s], serviceAccounts: [%s], destinations: [central], mode: %s}\n",
			env.Namespace, c.name(), c.mode)
	}
	fmt.Fprintf(&b, "sts: {endpoint: %q}\ntrust: {permissionsBoundary: \"arn:aws:iam::%s:policy/ampbridge-boundary\"}\n",
		f.Cloud.URL, env.AccountID)
	return b.String()
}

// snippet returns what `ampbridge config` prints for a cell, and the annotations that it tells the pod's owner to set.
func (f *fixture) snippet(t *testing.T, c *cell) (text string, annotations map[string]string) {
	t.Helper()
	text, err := f.Ampbridge(t.Context(), "config", "--policy", f.PolicyFile, "-o", c.snippet, "-n", env.Namespace,
		"--service-account", c.name())
	testkit.Must(t, err)
	annotations = map[string]string{}
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		comment := strings.TrimLeft(lines.Text(), "#/ ")
		if name, value, ok := strings.Cut(comment, ": "); ok && strings.HasPrefix(name, "ampbridge.io/") {
			annotations[name] = value
		}
	}
	return text, annotations
}

// start creates the pod of a cell through the API server, and runs it as a kubelet does.
func (f *fixture) start(t *testing.T, c *cell) {
	t.Helper()
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/" + c.name():
			_, _ = fmt.Fprintf(w, "counted %d\n", c.source.next()) // a scraper that is gone misses a sample of its own
		case "/api/v1/query":
			// As servers do, it answers for the time that it is asked for: a sample is written with that time.
			at, err := time.Parse(time.RFC3339Nano, r.FormValue("time"))
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			_, _ = fmt.Fprintf(w, `{"status":"success","data":{"resultType":"vector",`+
				`"result":[{"metric":{},"value":[%.3f,"%d"]}]}}`, float64(at.UnixMilli())/1000, c.source.next())
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
	config := map[string]string{"config.yml": replace.Replace(c.config)}
	annotations := map[string]string{policy.AnnotationContainer: "writer"}
	if c.snippet != "" {
		config["snippet"], annotations = f.snippet(t, c)
		if c.snippet == "vmagent" { // its snippet is arguments
			var values struct{ Args []string }
			testkit.Must(t, yaml.Unmarshal([]byte(config["snippet"]), &values))
			args = append(args, values.Args...)
		}
	}
	c.containerName = annotations[policy.AnnotationContainer]
	variables := []corev1.EnvVar{{Name: "TAKEN", Value: f.taken(c)}}
	if c.mode == "" {
		annotations = nil
		for _, v := range f.Account.AdminCredentials().Environ() {
			name, value, _ := strings.Cut(v, "=")
			variables = append(variables, corev1.EnvVar{Name: name, Value: value})
		}
	}
	ctx := t.Context()
	client := f.Cluster.Client().CoreV1()
	_, err := client.ConfigMaps(env.Namespace).Create(ctx, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: c.name()}, Data: config,
	}, metav1.CreateOptions{})
	testkit.Must(t, err)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: c.name(), Annotations: annotations},
		Spec: corev1.PodSpec{
			ServiceAccountName: c.name(),
			Containers: []corev1.Container{{
				Name: c.containerName, Image: "example/" + c.program + ":v1", Args: args, Env: variables,
				VolumeMounts: []corev1.VolumeMount{{Name: "config", MountPath: "/etc/writer"}},
			}},
			Volumes: []corev1.Volume{{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
				LocalObjectReference: corev1.LocalObjectReference{Name: c.name()}}}}},
		},
	}
	// The webhook reads its policy every few seconds.
	testkit.Within(t, time.Minute, c.name()+" is injected if it has a mode", func() bool {
		tried, err := client.Pods(env.Namespace).Create(ctx, pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		testkit.Must(t, err)
		return (tried.Annotations["ampbridge.io/injected"] != "") == (c.mode != "")
	})
	pod, err = client.Pods(env.Namespace).Create(ctx, pod, metav1.CreateOptions{})
	testkit.Must(t, err)
	c.pod, err = f.Run(ctx, pod, nil)
	testkit.Must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			logs := c.container().Logs()
			t.Logf("%s:\n%s", c.name(), logs[max(0, len(logs)-3000):])
		}
		if err := c.pod.Close(); err != nil {
			t.Error(err)
		}
	})
}

// container is the one that writes: the pod's first.
func (c *cell) container() *kubelet.Container { return c.pod.Container(c.containerName) }

// taken names the ports that other cells have. All pods share the host's network here, and a sidecar takes none that a
// container of its pod names.
func (f *fixture) taken(c *cell) string {
	taken, sidecars := "", 0
	for _, other := range f.cells {
		if other == c {
			break
		}
		if other.mode == policy.ModeRelay {
			taken += []string{" 24095 9095", " 25095 19095", " 26095 29095"}[sidecars]
			sidecars++
		}
	}
	return taken
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
				first, h, s := f.stored(t.Context(), c)
				if s-stored > h-highest || first != c.first { // more than the new ones
					since = time.Now()
				}
				if c.first, highest, stored = first, h, s; time.Since(since) > 3*time.Minute {
					t.Errorf("%s: nothing newer than %d arrives after outage %d: %d of %d", c.name(), ended, outage+1, stored, highest)
					return
				}
				time.Sleep(time.Second)
			}
			earlier := 0
			if outage > 0 {
				earlier = c.lost[0]
			}
			c.lost[outage] = highest - c.first + 1 - stored - earlier
			c.restarts[outage] = c.container().Restarts()
			if outage > 0 {
				c.restarts[outage] -= c.restarts[0]
			}
		})
	}
	group.Wait()
}

// stored returns the lowest and the highest number that arrived, and how many numbers did.
func (f *fixture) stored(ctx context.Context, c *cell) (first, highest, count int) {
	for function, into := range map[string]*int{"min(min": &first, "max(max": &highest, "max(count": &count} {
		samples, err := f.Cloud.Query(ctx, f.Workspace.ID,
			fmt.Sprintf(`%s_over_time(counted{job=%q}[1h]))`, function, c.name()))
		if err == nil && len(samples) > 0 {
			*into = int(samples[0].Value)
		}
	}
	return first, highest, count
}

// text is a cell of the table.
func (c *cell) text(outage int) string {
	text := "nothing is lost"
	if n := c.lost[outage]; n > 0 {
		text = fmt.Sprintf("%d samples are lost", n)
	}
	if skipped := c.first - 1; outage == 0 && skipped > 0 {
		text += fmt.Sprintf("; the first %d are not written", skipped)
	}
	if n := c.restarts[outage]; n > 0 {
		text += fmt.Sprintf("; the program exits, and is restarted %d times", n)
	}
	return text
}
