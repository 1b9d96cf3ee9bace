package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/pprof"
	"strconv"
	"strings"
	"syscall"
	"time"

	ctrlwebhook "sigs.k8s.io/controller-runtime/pkg/webhook"

	"github.com/ampbridge/ampbridge/webhook"
	"github.com/ampbridge/ampbridge/webhook/inject"
)

const (
	image    = "registry.example.com/ampbridge:bench"
	startsIn = 30 * time.Second
)

// child is a server in its own process, so that it shares no heap and no scheduler with other
// servers or the client.
type child struct {
	cmd    *exec.Cmd
	output *bytes.Buffer
	ended  chan struct{}
}

func startChild(program string, args ...string) (*child, error) {
	return startCommand(exec.Command(program, args...))
}

func startCommand(cmd *exec.Cmd) (*child, error) {
	c := &child{cmd: cmd, output: &bytes.Buffer{}, ended: make(chan struct{})}
	c.cmd.Stderr = c.output
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = c.cmd.Wait() // its output shows how it ended
		close(c.ended)
	}()
	return c, nil
}

// until polls check until it returns true or the child has ended.
func (c *child) until(what string, check func() bool) error {
	for deadline := time.Now().Add(startsIn); !check(); time.Sleep(20 * time.Millisecond) {
		select {
		case <-c.ended:
			return fmt.Errorf("%s ended: %s", filepath.Base(c.cmd.Path), c.output)
		default:
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: not within %s: %s", filepath.Base(c.cmd.Path), startsIn, what)
		}
	}
	return nil
}

func (c *child) stop() {
	_ = c.cmd.Process.Signal(syscall.SIGTERM) // an error means that it has ended
	select {
	case <-c.ended:
	case <-time.After(10 * time.Second):
		_ = c.cmd.Process.Kill()
		<-c.ended
	}
}

// memory is a resident set in MB of 10^6 bytes: all of it, the part without pages of the program's
// file, and the peak.
type memory struct{ all, own, peak float64 }

func (m memory) String() string {
	return fmt.Sprintf("%5.1f MB (%4.1f without the program's own pages)", m.all, m.own)
}

// resident reads VmRSS, RssAnon and VmHWM of proc_pid_status(5).
func (c *child) resident() (m memory, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))
	if err != nil {
		return m, err
	}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		field := map[string]*float64{"VmRSS": &m.all, "RssAnon": &m.own, "VmHWM": &m.peak}[name]
		if field == nil {
			continue
		}
		kib, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 64)
		if err != nil {
			return m, err
		}
		*field = kib * 1024 / 1e6
	}
	if m.all == 0 {
		return m, errors.New("no VmRSS in /proc/<pid>/status")
	}
	return m, nil
}

// cpu returns the processor time that the child has used so far.
func (c *child) cpu() (time.Duration, error) { return cpuOf(c.cmd.Process.Pid) }

// ownCPU returns the processor time of this process, which runs the clients.
func ownCPU() (time.Duration, error) { return cpuOf(os.Getpid()) }

// cpuOf returns user and system time, fields 14 and 15 of proc_pid_stat(5). Linux reports them to
// every program in hundredths of a second.
func cpuOf(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The second field is the program's name in parentheses.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	var ticks int64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}

// runChild runs in the process that startChild has started.
func runChild(kind string, args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	flags := flag.NewFlagSet(kind, flag.ContinueOnError)
	addr := flags.String("addr", "", "")
	health := flags.String("health-addr", "", "")
	metrics := flags.String("metrics-addr", "", "")
	certs := flags.String("cert-dir", "", "")
	policyFile := flags.String("policy", "", "")
	size := flags.Int("size", 0, "")
	profile := flags.String("profile", "", "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *profile != "" {
		if err := os.MkdirAll(*profile, 0o755); err != nil {
			return err
		}
		file, err := os.Create(filepath.Join(*profile, kind+".pprof"))
		if err != nil {
			return err
		}
		defer func() { _ = file.Close() }() // StopCPUProfile reports no error either
		if err := pprof.StartCPUProfile(file); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	switch kind {
	case "serve-sink":
		return serveSink(ctx, *addr, *health, *certs)
	case "serve-exporter":
		return serveExporter(ctx, *addr, *size)
	case "serve-webhook":
		// The log is written as in production, but to the null device.
		log, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return webhook.Run(ctx, webhook.Options{
			Addr: *addr, HealthAddr: *health, MetricsAddr: *metrics, CertDir: *certs, PolicyFile: *policyFile,
			Image: image, Cluster: inMemory{}, Logger: slog.New(slog.NewJSONHandler(log, nil)),
		})
	case "serve-constant":
		return serveConstant(ctx, *addr, *certs, *size)
	case "serve-plain":
		return servePlain(ctx, *addr, *certs, *size)
	}
	return fmt.Errorf("%s: want serve-webhook, serve-constant or serve-plain", kind)
}

// inMemory answers the webhook's look-ups at once, with a service account without annotations and a
// namespace without limits.
type inMemory struct{}

func (inMemory) ServiceAccount(context.Context, string, string) (map[string]string, error) {
	return nil, nil
}

func (inMemory) ServiceAccountAndLimits(context.Context, string, string) (map[string]string, inject.Limits, error) {
	return nil, inject.Limits{}, nil
}

// serveConstant measures the limit. On controller-runtime's server, a handler reads the request and
// answers with an AdmissionReview of the same size as the webhook's.
func serveConstant(ctx context.Context, addr, certs string, size int) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return err
	}
	server := ctrlwebhook.NewServer(ctrlwebhook.Options{Host: host, Port: number, CertDir: certs})
	server.Register(webhookPath, constant(size))
	return server.Start(ctx)
}

// servePlain does the same on Go's own server, without controller-runtime's metrics.
func servePlain(ctx context.Context, addr, certs string, size int) error {
	server := &http.Server{
		Addr: addr, ReadHeaderTimeout: 10 * time.Second,
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12},
		Handler:   constant(size),
	}
	go func() {
		<-ctx.Done()
		_ = server.Close() // no request is in flight when a measurement ends
	}()
	if err := server.ListenAndServeTLS(
		filepath.Join(certs, "tls.crt"),
		filepath.Join(certs, "tls.key"),
	); !errors.Is(
		err,
		http.ErrServerClosed,
	) {
		return err
	}
	return nil
}

func constant(size int) http.Handler {
	const head, tail = `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":"` + uid +
		`","allowed":true,"patchType":"JSONPatch","patch":"`, `"}}`
	body := []byte(head + strings.Repeat("A", max(0, size-len(head)-len(tail))) + tail)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = w.Write(body) // an error means that the client has disconnected
	})
}

func answers(url string) bool {
	answer, err := http.Get(url)
	if err != nil {
		return false
	}
	_ = answer.Body.Close()
	return answer.StatusCode == http.StatusOK
}
