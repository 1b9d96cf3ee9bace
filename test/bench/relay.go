package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/servingcert"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/tools"
)

// Budgets of the relay.
const (
	relayToPrometheus = 0.25
	totalToDirect     = 1.25
	extraNear         = 1500 * time.Microsecond
	extraFar          = 1.05 // with farLatency to AMP
	steadyMiB         = 24
	connectionsMiB    = 64
	bodiesMiB         = 96
	catchUpToDirect   = 1.25

	farLatency = 100 * time.Millisecond
	// connections is how many shards a Prometheus may have.
	connections = 200
	// smallLimit and defaultLimit are memory limits of containers.
	smallLimit, defaultLimit = 128 << 20, 256 << 20
)

// relayOptions determine how long to measure.
type relayOptions struct {
	series  int // scraped every second
	windows int
	window  time.Duration
	outages int
	outage  time.Duration
}

var errBudget = errors.New("a budget of correctness is broken: samples are lost, or memory is beyond its bound")

// measureRelay compares the relay with a Prometheus that signs itself. Two Prometheus scrape the
// same exporter at the same time. One sends directly to the sink, the other through the real
// sidecar.
func measureRelay(ctx context.Context, dir string, o relayOptions, r *report) (err error) {
	b := &relayBench{dir: dir, report: r, options: o, client: &http.Client{Timeout: time.Minute}}
	defer b.stop()
	if err := b.start(ctx); err != nil {
		return err
	}
	r.line("")
	r.line("relay: %d samples a second, each to Prometheus that signs, and to one with the relay", o.series)
	for _, step := range []func() error{b.windows, b.latency, b.outages, b.lost, b.bodies, b.edit} {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := step(); err != nil {
			return err
		}
	}
	if b.broken {
		return errBudget
	}
	return nil
}

type relayBench struct {
	dir     string
	report  *report
	options relayOptions
	client  *http.Client
	program string // the sidecar
	config  sidecarconfig.Config
	sinkURL string
	control string // of the sink, without TLS
	ca      []byte
	begun   int64 // of the samples that must arrive, in milliseconds since the epoch

	children        []*child
	sidecar         *child
	direct, relayed *child // Prometheus
	directURL       string
	relayedURL      string
	broken          bool
}

func (b *relayBench) stop() {
	for _, c := range slices.Backward(b.children) {
		c.stop()
	}
}

func (b *relayBench) run(cmd *exec.Cmd) (*child, error) {
	c, err := startCommand(cmd)
	if err == nil {
		b.children = append(b.children, c)
	}
	return c, err
}

// must returns the result for a budget. A missed budget fails the run.
func (b *relayBench) must(ok bool, budget string, args ...any) string {
	if !ok {
		b.broken = true
	}
	return b.report.judge(ok, budget, args...)
}

func (b *relayBench) start(ctx context.Context) (err error) {
	if b.program, err = buildShipped(ctx, b.dir, "config-sidecar"); err != nil {
		return err
	}
	prometheus, err := tools.Find(ctx, "prometheus", os.Stderr)
	if err != nil {
		return err
	}
	if b.ca, err = servingcert.Write(b.dir, "127.0.0.1"); err != nil {
		return err
	}
	sink, sinkErr := testkit.UnusedAddr("127.0.0.1")
	control, controlErr := testkit.UnusedAddr("127.0.0.1")
	exporter, exporterErr := testkit.UnusedAddr("127.0.0.1")
	if err := errors.Join(sinkErr, controlErr, exporterErr); err != nil {
		return err
	}
	b.sinkURL, b.control = "https://"+sink, "http://"+control
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if _, err := b.run(exec.Command(self, "serve-sink", "-addr="+sink, "-health-addr="+control, "-cert-dir="+b.dir)); err != nil {
		return err
	}
	exporting, err := b.run(exec.Command(self, "serve-exporter", "-addr="+exporter, "-size="+strconv.Itoa(b.options.series)))
	if err != nil {
		return err
	}
	if err := exporting.until("the exporter answers", func() bool { return answers("http://" + exporter) }); err != nil {
		return err
	}
	cloud, err := awstest.New(ctx, awstest.Options{})
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { _ = cloud.Close() }) // an error only leaves temporary files
	if b.config, err = sidecarConfig(ctx, cloud, filepath.Join(b.dir, "relayed")); err != nil {
		return err
	}
	b.config.Version = sidecarconfig.VersionRelay
	b.config.MetricsPort = sidecarconfig.NoMetrics
	d := &b.config.Destinations[0]
	d.Delivery = policy.DeliveryRelay
	d.AMP.CABundle = string(b.ca)
	d.Block.URL = b.sinkURL + "/workspaces/ws-relayed/api/v1/remote_write"
	text := fmt.Sprintf("global: {scrape_interval: 1s, scrape_timeout: 1s}\nscrape_configs:\n"+
		"- {job_name: bench, honor_labels: true, static_configs: [{targets: [%q]}]}\n", exporter)
	if b.sidecar, err = b.startSidecar(b.config, []byte(text), defaultLimit); err != nil {
		return err
	}
	if b.relayed, b.relayedURL, err = b.startPrometheus(prometheus, filepath.Join(b.config.Target, b.config.File), "relayed"); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(b.dir, "ca.pem"), b.ca, 0o600); err != nil {
		return err
	}
	text += fmt.Sprintf("remote_write:\n- url: %s/workspaces/ws-direct/api/v1/remote_write\n  tls_config: {ca_file: %s}\n"+
		"  sigv4: {region: %s, access_key: AKIAIOSFODNN7EXAMPLE, secret_key: example}\n"+
		"  queue_config: {capacity: 2500, max_shards: 200, max_samples_per_send: 1000, retry_on_http_429: true}\n",
		b.sinkURL, filepath.Join(b.dir, "ca.pem"), sidecarRegion)
	file := filepath.Join(b.dir, "direct.yml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return err
	}
	if b.direct, b.directURL, err = b.startPrometheus(prometheus, file, "direct"); err != nil {
		return err
	}
	time.Sleep(10 * time.Second) // until both queues have started to send
	b.begun = time.Now().UnixMilli()
	return nil
}

// startSidecar runs the sidecar with a configuration until it serves the block. Go gets as much
// memory as in a container with that limit.
func (b *relayBench) startSidecar(c sidecarconfig.Config, config []byte, limit int64) (*child, error) {
	if err := os.WriteFile(filepath.Join(c.Source, c.File), config, 0o600); err != nil {
		return nil, err
	}
	for _, missing := range []string{c.Target, filepath.Dir(c.Credentials)} {
		if err := os.MkdirAll(missing, 0o750); err != nil {
			return nil, err
		}
	}
	cmd := exec.Command(b.program)
	cmd.Env = []string{
		sidecarconfig.Variable + "=" + c.Encode(),
		sidecarconfig.PodNameVariable + "=prometheus-0",
		sidecarconfig.PodNamespaceVariable + "=" + namespace,
		"GOMEMLIMIT=" + strconv.FormatInt(sidecarconfig.HeapOf(limit), 10),
	}
	sidecar, err := b.run(cmd)
	if err != nil {
		return nil, err
	}
	return sidecar, sidecar.until("the block is served", func() bool { return blockServed(c) })
}

func blockServed(c sidecarconfig.Config) bool {
	served, err := os.ReadFile(filepath.Join(c.Target, c.File))
	return err == nil && bytes.Contains(served, []byte("# ampbridge generation"))
}

func (b *relayBench) startPrometheus(program, config, name string) (*child, string, error) {
	address, err := testkit.UnusedAddr("127.0.0.1")
	if err != nil {
		return nil, "", err
	}
	p, err := b.run(exec.Command(program, "--config.file="+config, "--web.listen-address="+address,
		"--storage.tsdb.path="+filepath.Join(b.dir, "data-"+name), "--log.level=warn"))
	if err != nil {
		return nil, "", err
	}
	at := "http://" + address
	return p, at, p.until("Prometheus is ready", func() bool { return answers(at + "/-/ready") })
}

// windows compares processor time.
func (b *relayBench) windows() error {
	var toPrometheus, toDirect []float64
	for range b.options.windows {
		var before, after [3]time.Duration
		read := func(into *[3]time.Duration) error {
			for i, c := range []*child{b.direct, b.relayed, b.sidecar} {
				var err error
				if into[i], err = c.cpu(); err != nil {
					return err
				}
			}
			return nil
		}
		if err := read(&before); err != nil {
			return err
		}
		time.Sleep(b.options.window)
		if err := read(&after); err != nil {
			return err
		}
		direct, prometheus, relay := after[0]-before[0], after[1]-before[1], after[2]-before[2]
		if min(direct, prometheus, relay) <= 0 {
			return errors.New("no processor time in a window: make -window longer")
		}
		toPrometheus = append(toPrometheus, float64(relay)/float64(prometheus))
		toDirect = append(toDirect, float64(relay+prometheus)/float64(direct))
	}
	m, err := b.sidecar.resident()
	if err != nil {
		return err
	}
	b.row("relay's processor time / Prometheus's, median of %d windows", []any{len(toPrometheus)},
		fmt.Sprintf("%.2f (%.2f to %.2f)", median(toPrometheus), slices.Min(toPrometheus), slices.Max(toPrometheus)),
		b.report.judge(median(toPrometheus) <= relayToPrometheus, "≤ %.2f", relayToPrometheus))
	b.row("processor time with the relay / direct, median of %d pairs", []any{len(toDirect)},
		fmt.Sprintf("%.2f (%.2f to %.2f)", median(toDirect), slices.Min(toDirect), slices.Max(toDirect)),
		b.report.judge(median(toDirect) <= totalToDirect, "≤ %.2f", totalToDirect))
	b.row("peak memory, steady", nil, mib(m.peak), b.must(m.peak <= steadyMiB*mebi, "≤ %d MiB", steadyMiB))
	return nil
}

// mebi is a MiB in MB, the unit of memory.
const mebi = (1 << 20) / 1e6

func mib(mb float64) string { return fmt.Sprintf("%.1f MiB", mb/mebi) }

func (b *relayBench) row(what string, args []any, measured, verdict string) {
	b.report.line("  %-62s %-24s %s", fmt.Sprintf(what, args...), measured, verdict)
}

func median(list []float64) float64 {
	sorted := slices.Sorted(slices.Values(list))
	if len(sorted)%2 == 1 {
		return sorted[len(sorted)/2]
	}
	return (sorted[len(sorted)/2-1] + sorted[len(sorted)/2]) / 2
}

// relayTarget is the URL and the password with which Prometheus writes to a sidecar's relay.
type relayTarget struct{ url, password string }

func targetOf(c sidecarconfig.Config) (t relayTarget, err error) {
	served, err := os.ReadFile(filepath.Join(c.Target, c.File))
	if err != nil {
		return t, err
	}
	_, rest, found := strings.Cut(string(served), "url: http://127.0.0.1:")
	_, file, hasFile := strings.Cut(rest, "password_file: ")
	if !found || !hasFile {
		return t, errors.New("the served configuration has no relay block")
	}
	password, err := os.ReadFile(strings.Fields(file)[0])
	return relayTarget{"http://127.0.0.1:" + strings.Fields(rest)[0], string(password)}, err
}

// latency compares single sends in turns.
func (b *relayBench) latency() error {
	sidecar, _, target, err := b.second("latency", []byte("global: {}\n"), defaultLimit)
	if err != nil {
		return err
	}
	defer sidecar.stop()
	direct := newClient(b.ca, false, 1)
	through := newClient(nil, false, 1)
	body := bytes.Repeat([]byte{0}, 27_000) // the sink does not decode it on this path
	for _, far := range []time.Duration{0, farLatency} {
		if err := b.command("delay", far.String()); err != nil {
			return err
		}
		var near, relayed load
		for n := range 210 {
			for _, side := range []struct {
				client *http.Client
				url    string
				load   *load
			}{{direct, b.sinkURL + "/raw", &near}, {through, target.url, &relayed}} {
				began := time.Now()
				if err := b.write(side.client, side.url, target.password, body); err != nil {
					return err
				}
				if n >= 10 { // after that the connections are open
					side.load.samples = append(side.load.samples, time.Since(began))
				}
			}
		}
		with, without := relayed.quantile(.5), near.quantile(.5)
		if far == 0 {
			b.row("a send of 27 KB, p50, beyond a direct one of %s ms", []any{ms(without)}, ms(with-without)+" ms",
				b.report.judge(with-without <= extraNear, "≤ %s ms", ms(extraNear)))
			continue
		}
		ratio := float64(with) / float64(without)
		b.row("the same with %s to AMP, / direct", []any{far}, fmt.Sprintf("%.3f", ratio), b.report.judge(ratio <= extraFar, "≤ %.2f", extraFar))
	}
	return b.command("delay", "0s")
}

func (b *relayBench) write(client *http.Client, to, password string, body []byte) error {
	request, err := http.NewRequest(http.MethodPost, to, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.SetBasicAuth(policy.RelayUser, password)
	request.Header.Set("X-Prometheus-Remote-Write-Version", "0.1.0")
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	if err := answer.Body.Close(); err != nil {
		return err
	}
	if answer.StatusCode/100 != 2 {
		return fmt.Errorf("%s answers %s", to, answer.Status)
	}
	return nil
}

// command sends a command to the sink.
func (b *relayBench) command(name, value string) error {
	answer, err := b.client.Get(b.control + "/" + name + "?value=" + value)
	if err != nil {
		return err
	}
	return answer.Body.Close()
}

// arrived returns how many samples of each scrape the sink has, by the scrape's time.
func (b *relayBench) arrived(workspace string) (counts map[int64]int, err error) {
	answer, err := b.client.Get(b.control + "/counts?value=" + workspace)
	if err != nil {
		return nil, err
	}
	defer func() { _ = answer.Body.Close() }() // only read
	return counts, json.NewDecoder(answer.Body).Decode(&counts)
}

// behind returns how far a workspace is behind: the age of the oldest scrape that is not complete.
// Scrapes of the last seconds may still be on their way.
func (b *relayBench) behind(workspace string) (time.Duration, error) {
	counts, err := b.arrived(workspace)
	if err != nil {
		return 0, err
	}
	now := time.Now().UnixMilli()
	newest := b.begun
	for at, n := range counts {
		if n >= b.options.series && at > newest {
			newest = at
		}
	}
	for at, n := range counts {
		if at >= b.begun && at < newest && n < b.options.series {
			newest = at
		}
	}
	return time.Duration(now-newest) * time.Millisecond, nil
}

// outages measures how long both Prometheus take to catch up.
func (b *relayBench) outages() error {
	if err := b.command("delay", farLatency.String()); err != nil {
		return err
	}
	var ratios, direct, relayed []float64
	for range b.options.outages {
		if err := b.command("fail", "true"); err != nil {
			return err
		}
		time.Sleep(b.options.outage)
		if err := b.command("fail", "false"); err != nil {
			return err
		}
		began := time.Now()
		took := map[string]time.Duration{}
		for len(took) < 2 {
			if time.Since(began) > 5*time.Minute {
				return fmt.Errorf("not caught up after 5 minutes: %v", took)
			}
			time.Sleep(250 * time.Millisecond)
			for _, workspace := range []string{"ws-direct", "ws-relayed"} {
				late, err := b.behind(workspace)
				if err != nil {
					return err
				}
				if _, done := took[workspace]; !done && late < 6*time.Second {
					took[workspace] = time.Since(began)
				}
			}
		}
		direct = append(direct, took["ws-direct"].Seconds())
		relayed = append(relayed, took["ws-relayed"].Seconds())
		ratios = append(ratios, took["ws-relayed"].Seconds()/took["ws-direct"].Seconds())
		time.Sleep(10 * time.Second) // until the number of shards is low again
	}
	m, err := b.sidecar.resident()
	if err != nil {
		return err
	}
	b.row("catch-up after %s of 503, %s to AMP / direct, median of %d", []any{b.options.outage, farLatency, len(ratios)},
		fmt.Sprintf("%.2f (%.0f s / %.0f s)", median(ratios), median(relayed), median(direct)),
		b.report.judge(median(ratios) <= catchUpToDirect, "≤ %.2f", catchUpToDirect))
	b.row("peak memory, with the outages", nil, mib(m.peak), b.must(m.peak <= bodiesMiB*mebi, "≤ %d MiB", bodiesMiB))
	return b.command("delay", "0s")
}

// lost counts lost samples. Each scrape since the beginning must be complete, and Prometheus must
// not have dropped any.
func (b *relayBench) lost() error {
	end := time.Now().UnixMilli()
	time.Sleep(15 * time.Second)
	for _, side := range []struct{ workspace, url string }{{"ws-direct", b.directURL}, {"ws-relayed", b.relayedURL}} {
		counts, err := b.arrived(side.workspace)
		if err != nil {
			return err
		}
		scrapes, err := b.scraped(side.url)
		if err != nil {
			return err
		}
		all, missing := 0, 0
		for _, at := range scrapes {
			if at >= b.begun && at < end {
				all += b.options.series
				missing += max(0, b.options.series-counts[at])
			}
		}
		failed, err := b.metric(side.url, "prometheus_remote_storage_samples_failed_total")
		if err != nil {
			return err
		}
		dropped, err := b.metric(side.url, "prometheus_remote_storage_samples_dropped_total")
		if err != nil {
			return err
		}
		ok := missing == 0 && failed == 0 && dropped == 0 && all > 0
		b.row("%s: lost, failed, dropped, of %d samples", []any{side.workspace, all},
			fmt.Sprintf("%d, %.0f, %.0f", missing, failed, dropped), b.must(ok, "0, 0, 0"))
	}
	return nil
}

// scraped returns the times of the scrapes that a Prometheus has stored, in milliseconds since the
// epoch.
func (b *relayBench) scraped(prometheus string) (times []int64, err error) {
	answer, err := b.client.Get(prometheus + "/api/v1/query?query=" + url.QueryEscape(`up{job="bench"}[1h]`))
	if err != nil {
		return nil, err
	}
	defer func() { _ = answer.Body.Close() }() // only read
	var got struct {
		Data struct {
			Result []struct{ Values [][2]any }
		}
	}
	if err := json.NewDecoder(answer.Body).Decode(&got); err != nil {
		return nil, err
	}
	for _, series := range got.Data.Result {
		for _, sample := range series.Values {
			if seconds, ok := sample[0].(float64); ok && sample[1] == "1" {
				times = append(times, int64(math.Round(seconds*1000)))
			}
		}
	}
	return times, nil
}

// metric returns the sum over the series of a metric.
func (b *relayBench) metric(prometheus, name string) (sum float64, err error) {
	answer, err := b.client.Get(prometheus + "/metrics")
	if err != nil {
		return 0, err
	}
	defer func() { _ = answer.Body.Close() }() // only read
	var text bytes.Buffer
	if _, err := text.ReadFrom(answer.Body); err != nil {
		return 0, err
	}
	for line := range strings.Lines(text.String()) {
		if strings.HasPrefix(line, name+"{") && !strings.Contains(line, `reason="dropped_series"`) {
			fields := strings.Fields(line)
			value, err := strconv.ParseFloat(fields[len(fields)-1], 64)
			if err != nil {
				return 0, err
			}
			sum += value
		}
	}
	return sum, nil
}

// second starts a separate sidecar, to measure a peak.
func (b *relayBench) second(name string, config []byte, limit int64) (*child, sidecarconfig.Config, relayTarget, error) {
	c := b.config
	dir := filepath.Join(b.dir, name)
	c.Source, c.Target = filepath.Join(dir, "source"), filepath.Join(dir, "target")
	c.Credentials = filepath.Join(dir, "credentials", "credentials")
	c.Destinations = slices.Clone(c.Destinations)
	c.Destinations[0].Block.URL = b.sinkURL + "/raw"
	if err := os.MkdirAll(c.Source, 0o750); err != nil {
		return nil, c, relayTarget{}, err
	}
	sidecar, err := b.startSidecar(c, config, limit)
	if err != nil {
		return nil, c, relayTarget{}, err
	}
	target, err := targetOf(c)
	return sidecar, c, target, err
}

// press writes with many connections until it is stopped. It also counts 503 as an answer.
func (b *relayBench) press(t relayTarget, size int) (stop func() (answers int, err error)) {
	ctx, cancel := context.WithCancel(context.Background())
	client := newClient(nil, false, connections)
	results := make(chan int)
	body := make([]byte, size)
	for range connections {
		go func() {
			n := 0
			for ctx.Err() == nil {
				request, err := http.NewRequestWithContext(ctx, http.MethodPost, t.url, bytes.NewReader(body))
				if err != nil {
					break
				}
				request.SetBasicAuth(policy.RelayUser, t.password)
				answer, err := client.Do(request)
				if err != nil {
					continue
				}
				if answer.StatusCode/100 == 2 {
					n++
				} else {
					time.Sleep(100 * time.Millisecond)
				}
				_ = answer.Body.Close() // without reading it, so the next request uses another connection
			}
			results <- n
		}()
	}
	return func() (answers int, err error) {
		cancel()
		for range connections {
			answers += <-results
		}
		client.CloseIdleConnections()
		if answers == 0 {
			err = errors.New("the relay took no write under load")
		}
		return answers, err
	}
}

// bodies measures the peak with many connections, in a container of 128 MiB.
func (b *relayBench) bodies() error {
	if err := b.command("delay", farLatency.String()); err != nil {
		return err
	}
	for _, load := range []struct {
		name   string
		size   int
		budget float64
	}{{"27 KB", 27_000, connectionsMiB}, {"1 MB", 1_000_000, bodiesMiB}} {
		sidecar, _, target, err := b.second("peak-"+strconv.Itoa(load.size), []byte("global: {}\n"), smallLimit)
		if err != nil {
			return err
		}
		stop := b.press(target, load.size)
		time.Sleep(15 * time.Second)
		answers, err := stop()
		if err != nil {
			return err
		}
		m, err := sidecar.resident()
		if err != nil {
			return err
		}
		sidecar.stop()
		b.row("peak memory, %d connections of %s, limit of 128 MiB (%d writes)", []any{connections, load.name, answers},
			mib(m.peak), b.must(m.peak <= load.budget*mebi, "≤ %.0f MiB", load.budget))
	}
	return b.command("delay", "0s")
}

// edit changes a configuration of 4 MB while the relay is under load, within the default limit.
func (b *relayBench) edit() error {
	sidecar, c, target, err := b.second("edit", configuration(4e6), defaultLimit)
	if err != nil {
		return err
	}
	stop := b.press(target, 1_000_000)
	time.Sleep(5 * time.Second)
	changed := append(configuration(4e6), "# changed\n"...)
	if err := os.WriteFile(filepath.Join(c.Source, c.File), changed, 0o600); err != nil {
		return err
	}
	began := time.Now()
	err = sidecar.until("the changed configuration is served", func() bool {
		served, err := os.ReadFile(filepath.Join(c.Target, c.File))
		return err == nil && bytes.Contains(served, []byte("# changed\n")) && blockServed(c)
	})
	took := time.Since(began)
	answers, pressErr := stop()
	if err := errors.Join(err, pressErr); err != nil {
		return err
	}
	m, err := sidecar.resident()
	if err != nil {
		return err
	}
	sidecar.stop()
	b.row("peak memory, while a configuration of 4 MB is edited in %.1f s (%d)", []any{took.Seconds(), answers},
		mib(m.peak), b.must(m.peak <= defaultLimit/1e6, "≤ %d MiB", defaultLimit>>20))
	return nil
}
