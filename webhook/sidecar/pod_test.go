package sidecar_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/test/ststest"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/webhook/sidecar"
)

const (
	user    = "global:\n  scrape_interval: 15s\n"
	rules   = "groups: []\n"
	timeout = 20 * time.Second
)

// pod is a pod's volumes, and the sidecar in it.
type pod struct {
	*ststest.STS
	config  sidecarconfig.Config
	text    string // in the place of the encoded config
	metrics string
	wait    time.Duration // for the first sessions: long, so that a busy machine changes nothing
	log     testkit.Buffer
	stop    func()
}

// newPod returns a pod with a sidecar that has not started yet. Its sessions last that many
// seconds.
func newPod(t *testing.T, seconds int, destinations ...string) *pod {
	t.Helper()
	p := &pod{STS: ststest.New(t), wait: timeout / 2, stop: func() {}}
	p.AllowShortSessions()
	dir := t.TempDir()
	p.config = sidecarconfig.Config{
		Version: sidecarconfig.VersionSigV4, Cluster: "dev",
		Source: filepath.Join(dir, "source"), Target: filepath.Join(dir, "target"), File: "prometheus.yml",
		Credentials: filepath.Join(dir, "credentials", "credentials"), Private: true, Token: p.Token,
		SessionSeconds: seconds, STS: sidecarconfig.STS{Endpoint: p.URL},
	}
	for _, d := range []string{"source", "target", "credentials"} {
		testkit.Must(t, os.Mkdir(filepath.Join(dir, d), 0o755))
	}
	for i, name := range destinations {
		var d policy.Destination
		d.Name = name
		testkit.Must(t, d.Workspace.UnmarshalText(fmt.Appendf(nil, "arn:aws:aps:eu-west-1:11112222333%d:workspace/ws-%s", i, name)))
		p.config.Destinations = append(p.config.Destinations, sidecarconfig.Destination{
			Name: name, Role: p.Role(t, fmt.Sprintf("11112222333%d", i), "writer", 43200), Region: ststest.Region, Block: d.Block("dev"),
		})
	}
	p.configure(t, user)
	return p
}

// configure swaps the source, as the kubelet does.
func (p *pod) configure(t *testing.T, config string) {
	t.Helper()
	testkit.Must(t, testkit.WriteVolume(p.config.Source, map[string]testkit.VolumeFile{
		"prometheus.yml": {Mode: 0o644, Data: []byte(config)},
		"rules.yml":      {Mode: 0o640, Data: []byte(rules)},
	}))
}

func (p *pod) options() sidecar.Options {
	o := sidecar.Options{
		Config: p.text, Pod: "prometheus-0", Namespace: "monitoring", MetricsAddress: p.metrics,
		FirstWait: p.wait, Source: p.config.Source, Target: p.config.Target, Log: slog.New(slog.NewJSONHandler(&p.log, nil)),
	}
	if p.text == "" {
		o.Config = p.config.Encode()
	}
	return o
}

// start runs a sidecar until stop is called, or the test ends.
func (p *pod) start(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := sidecar.Run(ctx, p.options()); err != nil {
			t.Error(err)
		}
	}()
	p.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case <-ended:
		case <-time.After(timeout):
			t.Error("the sidecar does not end")
		}
	})
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			t.Log(p.log.String())
		}
	})
}

// eventually waits until holds.
func (p *pod) eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(timeout); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s\nserved: %q\ncredentials: %q", timeout, what, p.served(), p.profiles())
		}
	}
}

// served returns the configuration as Prometheus sees it; empty until there is one.
func (p *pod) served() string {
	content, err := os.ReadFile(filepath.Join(p.config.Target, p.config.File))
	if err != nil {
		return ""
	}
	return string(content)
}

// has reports whether the block of a destination is served.
func (p *pod) has(destination string) bool {
	return strings.Contains(p.served(), "name: "+policy.BlockName(destination)+"\n")
}

// relays reports whether the relay block of a destination is served.
func (p *pod) relays(destination string) bool {
	return strings.Contains(p.served(), "/"+policy.BlockName(destination)+"/workspaces/")
}

// profiles returns the headers of the sections for Prometheus in the credentials file.
func (p *pod) profiles() (heads []string) {
	content, err := os.ReadFile(p.config.Credentials)
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(content)) {
		if strings.HasPrefix(line, "[") && !strings.HasPrefix(line, "[profile ") {
			heads = append(heads, strings.TrimSpace(line))
		}
	}
	return heads
}

// status waits for the status file, and returns its content.
func (p *pod) status(t *testing.T) sidecarconfig.Status {
	t.Helper()
	var content []byte
	p.eventually(t, "there is a status", func() (ok bool) {
		var err error
		content, err = os.ReadFile(filepath.Join(filepath.Dir(p.config.Credentials), sidecarconfig.StatusFile))
		return err == nil
	})
	status, err := sidecarconfig.DecodeStatus(content)
	testkit.Must(t, err)
	return status
}

// servedPod returns a pod with a sidecar that serves the block of central.
func servedPod(t *testing.T, seconds int) *pod {
	t.Helper()
	p := newPod(t, seconds, "central")
	p.start(t)
	p.eventually(t, "the block is served", func() bool { return p.has("central") })
	return p
}
