package awstest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ampbridge/ampbridge/test/testkit"
)

// backends are the workspaces' Prometheus servers, one each, started on first use.
type backends struct {
	mu      sync.Mutex
	closed  bool
	running map[string]*backend
}

func (b *backends) of(c *Cloud, workspace string) (*backend, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, errors.New("the double is closed")
	}
	if started, ok := b.running[workspace]; ok {
		return started, nil
	}
	started, err := startBackend(c.options.Prometheus, filepath.Join(c.options.Dir, workspace))
	if err != nil {
		return nil, err
	}
	if b.running == nil {
		b.running = map[string]*backend{}
	}
	b.running[workspace] = started
	return started, nil
}

func (b *backends) close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	var err error
	for _, running := range b.running {
		err = errors.Join(err, running.stop())
	}
	b.running = nil
	return err
}

// backend is a running Prometheus that accepts remote writes.
type backend struct {
	url     string
	command *exec.Cmd
	done    chan struct{} // closed when the process ends
	failure error         // why it ended; valid after done is closed
	output  testkit.Buffer
}

const startTimeout = 30 * time.Second

func startBackend(binary, dir string) (*backend, error) {
	if binary == "" {
		return nil, errors.New("Options.Prometheus names no binary")
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, err
	}
	configuration := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(configuration, nil, 0o600); err != nil {
		return nil, err
	}
	address, err := testkit.UnusedAddr("127.0.0.1")
	if err != nil {
		return nil, err
	}
	b := &backend{url: "http://" + address, done: make(chan struct{})}
	b.command = exec.Command(binary,
		"--config.file="+configuration,
		"--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+address,
		"--web.enable-remote-write-receiver",
		"--log.level=warn",
	)
	b.command.Stdout, b.command.Stderr = &b.output, &b.output
	dieWithParent(b.command)
	started := make(chan error)
	go b.run(started)
	if err := <-started; err != nil {
		return nil, err
	}
	if err := b.waitReady(); err != nil {
		return nil, errors.Join(err, b.stop())
	}
	return b, nil
}

func (b *backend) startAndWait(started chan<- error) {
	err := b.command.Start()
	started <- err
	if err == nil {
		b.failure = b.command.Wait()
		close(b.done)
	}
}

func (b *backend) waitReady() error {
	deadline := time.After(startTimeout)
	for {
		response, err := http.Get(b.url + "/-/ready")
		if err == nil {
			_ = response.Body.Close() // nothing to read
			if response.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-b.done:
			return fmt.Errorf("prometheus ended at start (%w): %s", b.failure, b.output.String())
		case <-deadline:
			return fmt.Errorf("prometheus is not ready after %s: %s", startTimeout, b.output.String())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (b *backend) stop() error {
	select {
	case <-b.done:
		return nil
	default:
	}
	if err := b.command.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-b.done
	return nil
}

// forward passes the request on, with its body and all headers except those of the signature.
func (b *backend) forward(r *http.Request, path string, body []byte) (answer, error) {
	target := b.url + path
	if r.URL.RawQuery != "" {
		target += "?" + r.URL.RawQuery
	}
	request, err := http.NewRequestWithContext(r.Context(), r.Method, target, bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	for name, values := range r.Header {
		if name != "Authorization" && name != "Connection" && !strings.HasPrefix(name, "X-Amz-") {
			request.Header[name] = values
		}
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = response.Body.Close() }() // read completely
	content, err := io.ReadAll(response.Body)
	header := response.Header.Clone()
	header.Del("Content-Length")
	return answer{response.StatusCode, header, content}, err
}

// Sample is one sample of one series.
type Sample struct {
	Metric map[string]string // labels, the name under __name__
	Value  float64
	Time   time.Time
}

// Query evaluates PromQL over the current content of the workspace (its ID), without any signing. The result
// is an instant vector, or the samples of a range vector (`up[5m]`), series by series.
func (c *Cloud) Query(ctx context.Context, workspace, promql string) ([]Sample, error) {
	c.mu.Lock()
	known := c.workspaces[workspace] != nil
	c.mu.Unlock()
	if !known {
		return nil, fmt.Errorf("no workspace %q", workspace)
	}
	b, err := c.prometheus.of(c, workspace)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, b.url+"/api/v1/query?query="+url.QueryEscape(promql), nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }() // read only
	var result struct {
		Error string `json:"error"`
		Data  struct {
			Type   string `json:"resultType"`
			Result []struct {
				Metric map[string]string `json:"metric"`
				Value  *[2]any           `json:"value"` // seconds since the epoch, value as text
				Values [][2]any          `json:"values"`
			} `json:"result"`
		} `json:"data"`
	}
	if err := json.NewDecoder(response.Body).Decode(&result); err != nil {
		return nil, fmt.Errorf("query %q: %w", promql, err)
	}
	if result.Error != "" {
		return nil, fmt.Errorf("query %q: %s", promql, result.Error)
	}
	samples := make([]Sample, 0, len(result.Data.Result))
	for _, r := range result.Data.Result {
		if r.Value != nil {
			r.Values = append(r.Values, *r.Value)
		}
		for _, v := range r.Values {
			seconds, _ := v[0].(float64)
			text, _ := v[1].(string)
			value, err := strconv.ParseFloat(text, 64)
			if err != nil {
				return nil, fmt.Errorf("query %q: value %v: %w", promql, v, err)
			}
			samples = append(samples, Sample{r.Metric, value, time.UnixMilli(int64(seconds * 1000))})
		}
	}
	return samples, nil
}
