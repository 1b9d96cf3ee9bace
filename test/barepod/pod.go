package barepod

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/testkit"
)

const configFile = "prometheus.yml"

// Invalid is a line that no Prometheus loads: see [Pod.SetConfig].
const Invalid = "no_such_field: 1"

// Pod is one pod. Its data directory outlives a run; its memory volumes do not.
type Pod struct {
	Account   *awstest.Account
	Workspace *awstest.Workspace
	// Sidecar and Server are the containers.
	Sidecar, Server *Process

	site    *Site
	options Options
	config  sidecarconfig.Config
	dir     string
	address string
	path    string
	count   *atomic.Int64

	mu       sync.Mutex
	reloads  int
	failed   []string // reloads that failed, the user's own aside
	reloader context.CancelFunc
	reloaded chan struct{} // closed when the reloader has ended
}

// SetConfig plays the kubelet after the user's change: more is added to the configuration.
func (p *Pod) SetConfig(more string) error {
	return testkit.WriteVolume(filepath.Join(p.dir, "source"), map[string]testkit.VolumeFile{configFile: {Mode: 0o644, Data: fmt.Appendf(nil,
		"global: {scrape_interval: 500ms, scrape_timeout: 500ms}\n"+
			"scrape_configs:\n- {job_name: counted, metrics_path: %s, static_configs: [{targets: [%q]}]}\n%s\n",
		p.path, strings.TrimPrefix(p.site.target.URL, "http://"), more)}})
}

func (p *Pod) sidecarCommand(args ...string) *exec.Cmd {
	cmd := exec.Command(p.site.program, args...)
	cmd.Env = []string{
		sidecarconfig.Variable + "=" + p.config.Encode(),
		sidecarconfig.PodNameVariable + "=prometheus-0", sidecarconfig.PodNamespaceVariable + "=monitoring",
	}
	return cmd
}

func (p *Pod) serverCommand() *exec.Cmd {
	data := filepath.Join(p.dir, "data")
	args := []string{
		"--config.file=" + filepath.Join(p.config.Target, configFile), "--web.listen-address=" + p.address, "--web.enable-lifecycle",
	}
	switch {
	case !p.options.Agent:
		args = append(args, "--storage.tsdb.path="+data)
	case strings.HasPrefix(p.options.Version, "2."):
		args = append(args, "--enable-feature=agent", "--storage.agent.path="+data)
	default:
		args = append(args, "--agent", "--storage.agent.path="+data)
	}
	cmd := exec.Command(p.options.Program, args...)
	cmd.Env = []string{"AWS_SHARED_CREDENTIALS_FILE=" + p.config.Credentials}
	return cmd
}

// StartSidecar is the first half of [Pod.Start]: it makes the memory volumes and starts the
// sidecar, as the kubelet does at the start of a pod.
func (p *Pod) StartSidecar(tb testing.TB) {
	tb.Helper()
	for _, dir := range []string{p.config.Target, filepath.Dir(p.config.Credentials)} {
		testkit.Must(tb, errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o750)))
	}
	testkit.Must(tb, p.Sidecar.start())
}

// Start starts the sidecar, and once its startup probe succeeds Prometheus and the reloader.
// It returns when Prometheus is ready, with how long that took.
func (p *Pod) Start(tb testing.TB) time.Duration {
	tb.Helper()
	begun := time.Now()
	p.StartSidecar(tb)
	return p.StartServer(tb, begun)
}

// StartServer is the second half of [Pod.Start].
func (p *Pod) StartServer(tb testing.TB, begun time.Time) time.Duration {
	tb.Helper()
	testkit.Eventually(tb, "the sidecar's startup probe succeeds", func() bool {
		return p.sidecarCommand(sidecarconfig.ReadyArgument).Run() == nil
	})
	testkit.Must(tb, p.Server.start())
	ctx, cancel := context.WithCancel(context.Background())
	p.reloader, p.reloaded = cancel, make(chan struct{})
	go p.reload(ctx)
	return p.EventuallyReady(tb, begun)
}

// Stop ends the run, Prometheus first. It does nothing where none is.
func (p *Pod) Stop() {
	if p.reloader != nil {
		p.reloader()
		<-p.reloaded
		p.reloader = nil
	}
	p.Server.stop(20 * time.Second)
	p.Sidecar.stop(5 * time.Second)
}

// EventuallyReady waits until Prometheus is ready, and returns how long that took since begun.
func (p *Pod) EventuallyReady(tb testing.TB, begun time.Time) time.Duration {
	tb.Helper()
	testkit.Eventually(tb, "Prometheus is ready", func() bool { return p.Ready() })
	return time.Since(begun)
}

// Address is where Prometheus listens.
func (p *Pod) Address() string { return p.address }

// Ready reports whether Prometheus is ready.
func (p *Pod) Ready() bool {
	_, err := p.call(http.MethodGet, "/-/ready")
	return err == nil
}

// Metric is the value of a metric of Prometheus's own, without labels; ok is false where
// there is none, or Prometheus does not answer.
func (p *Pod) Metric(name string) (value float64, ok bool) {
	page, err := p.call(http.MethodGet, "/metrics")
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(page) {
		if text, found := strings.CutPrefix(line, name+" "); found {
			_, err := fmt.Sscan(text, &value)
			return value, err == nil
		}
	}
	return 0, false
}

var client = http.Client{Timeout: 10 * time.Second}

// errStatus is an answer of Prometheus that is no success.
var errStatus = errors.New("answered by Prometheus with")

func (p *Pod) call(method, path string) (string, error) {
	request, err := http.NewRequest(method, "http://"+p.address+path, http.NoBody)
	if err != nil {
		return "", err
	}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }() // read to its end
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%w %s: %s", errStatus, response.Status, text)
	}
	return string(text), err
}

// served is the configuration as Prometheus sees it.
func (p *Pod) served() string {
	text, err := os.ReadFile(filepath.Join(p.config.Target, configFile))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Served reports whether the configuration as Prometheus sees it contains a text.
func (p *Pod) Served(text string) bool { return strings.Contains(p.served(), text) }

// reload plays the config reloader: it reloads once at its start, as the real one does, and
// after each change, again and again until that succeeds.
func (p *Pod) reload(ctx context.Context) {
	defer close(p.reloaded)
	data := filepath.Join(p.config.Target, "..data")
	loaded := ""
	for ; ctx.Err() == nil; time.Sleep(200 * time.Millisecond) {
		link, err := os.Readlink(data)
		if err != nil || link == loaded || !p.Ready() {
			continue
		}
		users := strings.Contains(p.served(), Invalid)
		_, err = p.call(http.MethodPost, "/-/reload")
		p.mu.Lock()
		p.reloads++
		switch now, _ := os.Readlink(data); {
		case err == nil:
			loaded = link
		case errors.Is(err, errStatus) && !users && now == link:
			p.failed = append(p.failed, err.Error())
		}
		p.mu.Unlock()
		if err != nil {
			time.Sleep(time.Second)
		}
	}
}

// Reloads is how many there were, and which of them failed, but for those that failed
// because of [Invalid] in the user's configuration.
func (p *Pod) Reloads() (n int, failed []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.reloads, append([]string(nil), p.failed...)
}

// CheckUnharmed fails the test if Prometheus is not ready, has ended more often than the test
// ended it, has panicked, or could not load a configuration that was not the user's fault.
func (p *Pod) CheckUnharmed(tb testing.TB, restarts int) {
	tb.Helper()
	if !p.Ready() {
		tb.Error("Prometheus is not ready")
	}
	if n := p.Server.Restarts(); n != restarts {
		tb.Errorf("Prometheus was started again %d times, want %d: %v", n, restarts, p.Server.Exits())
	}
	if strings.Contains(p.Server.Log(), "panic:") {
		tb.Error("Prometheus panicked")
	}
	if strings.Contains(p.Sidecar.Log(), "panic") {
		tb.Error("the sidecar panicked")
	}
	if _, failed := p.Reloads(); len(failed) > 0 {
		tb.Errorf("reloads failed: %v", failed)
	}
}
