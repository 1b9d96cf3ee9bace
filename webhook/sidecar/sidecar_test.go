package sidecar_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/promconfig"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/webhook/sidecar"
)

func TestServesTheBlock(t *testing.T) {
	t.Parallel()
	p := newPod(t, 3600, "central")
	if err := sidecar.Ready(p.options()); err == nil {
		t.Error("ready before there is a configuration")
	}
	p.start(t)
	p.eventually(t, "the block is served", func() bool { return p.has("central") })
	if err := sidecar.Ready(p.options()); err != nil {
		t.Error(err)
	}
	p.eventually(t, "the log has it", func() bool { return strings.Contains(p.log.String(), "configuration served") })
	if n := strings.Count(p.log.String(), "configuration served"); n != 1 {
		t.Errorf("%d configurations were served, want the first to have the block", n)
	}
	if back, err := promconfig.Remove([]byte(p.served())); err != nil || string(back) != user {
		t.Errorf("without the block: %q, %v", back, err)
	}
	if got := p.profiles(); len(got) != 1 || got[0] != "[ampbridge-central]" {
		t.Errorf("profiles %v", got)
	}
	if info, err := os.Stat(p.config.Credentials); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("credentials: %v, %v", info.Mode(), err)
	}
	if info, err := os.Stat(filepath.Join(p.config.Target, "rules.yml")); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("the other file: %v", err)
	}
	p.eventually(t, "the status says so", func() bool {
		d := p.status(t).Destinations[0]
		return d.Block && d.Valid && d.Error == "" && d.GapSince.IsZero()
	})
}

// TestFaultsAtStart: whatever STS does, Prometheus gets the relay's block at once and no other
// block later.
func TestFaultsAtStart(t *testing.T) {
	t.Parallel()
	for name, inject := range map[string]func(t *testing.T, p *pod) (fix func()){
		"refused": func(t *testing.T, p *pod) func() {
			p.StopListening()
			return func() {
				if err := p.StartListening(); err != nil {
					t.Error(err)
				}
			}
		},
		"denied":       func(_ *testing.T, p *pod) func() { return p.Fail("sts:*", awstest.Deny).Stop },
		"hanging":      func(_ *testing.T, p *pod) func() { return p.Fail("sts:*", awstest.Hang).Stop },
		"server error": func(_ *testing.T, p *pod) func() { return p.Fail("sts:*", awstest.ServerError).Stop },
		"no token": func(t *testing.T, p *pod) func() {
			token := testkit.ReadFile(t, p.Token)
			testkit.Must(t, os.Remove(p.Token))
			return func() { p.WriteToken(t, token) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPod(t, 3600, "central")
			p.wait = 0
			fix := inject(t, p)
			begin := time.Now()
			p.start(t)
			p.eventually(t, "something is served", func() bool { return p.served() != "" })
			if waited := time.Since(begin); waited > 5*time.Second {
				t.Errorf("Prometheus had to wait for %v", waited)
			}
			first := p.served()
			if !p.relays("central") || p.has("central") {
				t.Errorf("served %q, want the relay's block", first)
			}
			p.eventually(t, "the status names the error", func() bool { return p.status(t).Destinations[0].Error != "" })
			fix()
			p.eventually(t, "the status is good", func() bool {
				d := p.status(t).Destinations[0]
				return d.Error == "" && d.Valid && d.Block && d.Delivery == sidecarconfig.DeliveryRelay && d.Moved != ""
			})
			if p.served() != first {
				t.Errorf("served %q, want what Prometheus started with", p.served())
			}
			if p.config.Version == sidecarconfig.VersionRelay && len(p.profiles()) > 0 {
				t.Error("a session lies where Prometheus can read it")
			}
		})
	}
}

// TestExpiry: a destination moves to the relay before its session ends. It stays there after a
// restart of the sidecar too. Prometheus loads each profile until the end.
func TestExpiry(t *testing.T) {
	t.Parallel()
	p := servedPod(t, 6)
	fault := p.Fail("sts:*", awstest.ServerError)
	p.eventually(t, "both blocks are served", func() bool { return p.has("central") && p.relays("central") })
	if d := p.status(t).Destinations[0]; !d.Valid {
		t.Error("the move begins when the session is over")
	}
	p.eventually(t, "the relay's block stays", func() bool { return !p.has("central") && p.relays("central") })
	if got := p.profiles(); len(got) != 1 {
		t.Errorf("profiles %v: what Prometheus may still hold is gone", got)
	}
	moved := p.served()
	p.stop()
	p.start(t)
	fault.Stop()
	p.eventually(t, "there is a session again", func() bool { return p.status(t).Destinations[0].Valid })
	p.configure(t, user+"# changed\n")
	p.eventually(t, "a change is served", func() bool { return strings.Contains(p.served(), "# changed") })
	if back, err := promconfig.Remove([]byte(moved)); p.has("central") || err != nil || string(back) != user {
		t.Errorf("after the move: %q; without the block: %q, %v", p.served(), back, err)
	}
}

// TestRenewal: each new session is in the credentials file before the configuration changes, and
// the block is never missing.
func TestRenewal(t *testing.T) {
	t.Parallel()
	p := servedPod(t, 6)
	configs, keys := map[string]bool{}, map[string]bool{}
	p.eventually(t, "five sessions", func() bool {
		config := p.served()
		if !p.has("central") {
			t.Fatalf("the block is out: %q", config)
		}
		if !configs[config] {
			content := testkit.ReadFile(t, p.config.Credentials)
			if keys[content] {
				t.Error("a configuration was served before its credentials")
			}
			configs[config], keys[content] = true, true
		}
		return len(configs) == 5
	})
	if n := strings.Count(p.log.String(), "\n"); n > 4 {
		t.Errorf("%d lines in the log of an undisturbed sidecar", n)
	}
}

// TestRestart: after a restart, the sidecar uses its earlier sessions even if STS does not answer,
// and it causes no reload.
func TestRestart(t *testing.T) {
	t.Parallel()
	p := servedPod(t, 3600)
	p.eventually(t, "the log has it", func() bool { return strings.Contains(p.log.String(), "configuration served") })
	p.stop()
	before, err := os.Readlink(filepath.Join(p.config.Target, "..data"))
	testkit.Must(t, err)
	p.StopListening()
	p.start(t)
	p.eventually(t, "it has looked", func() bool { return strings.Count(p.log.String(), "configuration served") == 2 })
	if after, err := os.Readlink(filepath.Join(p.config.Target, "..data")); err != nil || after != before {
		t.Errorf("..data moved from %s to %s, %v", before, after, err)
	}
	p.configure(t, user+"# changed\n")
	p.eventually(t, "a change is served, with the block", func() bool { return strings.Contains(p.served(), "# changed") })
	if !p.has("central") {
		t.Error("the block is out")
	}
}

func TestSourceChanges(t *testing.T) {
	t.Parallel()
	p := servedPod(t, 3600)
	p.configure(t, "global: {scrape_interval: 30s}\n")
	p.eventually(t, "the change is served", func() bool { return strings.Contains(p.served(), "30s") && p.has("central") })

	broken := "global: [\n"
	p.configure(t, broken)
	p.eventually(t, "the broken configuration is passed through", func() bool { return p.served() == broken })
	p.eventually(t, "the status says why", func() bool {
		s := p.status(t)
		return s.Config.Result == "passed_through" && strings.Contains(s.Config.Error, "not YAML") && !s.Destinations[0].Block
	})

	own := "remote_write: [{url: 'https://vpce/workspaces/ws-central/api/v1/remote_write'}]\n"
	p.configure(t, own)
	p.eventually(t, "the user's own entry wins", func() bool { return p.served() == own })
	p.eventually(t, "the status says so", func() bool { return p.status(t).Destinations[0].Skipped != "" })

	hidden := p.config.Source + ".hidden"
	testkit.Must(t, os.Rename(p.config.Source, hidden))
	p.eventually(t, "the status tells that the source is gone", func() bool { return p.status(t).Error != "" })
	if p.served() != own {
		t.Errorf("served %q while the source is gone", p.served())
	}
	testkit.Must(t, os.Rename(hidden, p.config.Source))
	p.eventually(t, "the source is back", func() bool { return p.status(t).Error == "" })
	p.configure(t, user)
	p.eventually(t, "the block is served again", func() bool { return p.has("central") })
}

// TestTargetCannotBeWritten: the sidecar waits until the target can be written again.
func TestTargetCannotBeWritten(t *testing.T) {
	t.Parallel()
	p := servedPod(t, 3600)
	hidden := p.config.Target + ".hidden"
	testkit.Must(t, os.Rename(p.config.Target, hidden))
	p.configure(t, user+"# changed\n")
	p.eventually(t, "the status tells", func() bool { return p.status(t).Error != "" })
	testkit.Must(t, os.Rename(hidden, p.config.Target))
	p.eventually(t, "the change is served", func() bool { return strings.Contains(p.served(), "# changed") })
}

// TestTwoDestinations: a destination that STS denies does not delay the other one.
func TestTwoDestinations(t *testing.T) {
	t.Parallel()
	p := newPod(t, 3600, "central", "backup")
	fault := p.Account("111122223331").Fail("sts:*", awstest.Deny)
	p.wait = 3 * time.Second
	p.start(t)
	p.eventually(t, "the one block is served", func() bool { return p.has("central") })
	if p.has("backup") || !p.relays("backup") {
		t.Error("the denied destination has not got the relay")
	}
	fault.Stop()
	p.eventually(t, "both have a session", func() bool { return p.status(t).Destinations[1].Valid })
	p.eventually(t, "both are written to", func() bool { return p.has("central") && (p.has("backup") || p.relays("backup")) })
	if got := p.profiles(); len(got) != 2 {
		t.Errorf("profiles %v", got)
	}
}

// TestOperatorsSecret: the configuration of prometheus-operator is gzipped.
func TestOperatorsSecret(t *testing.T) {
	t.Parallel()
	p := newPod(t, 3600, "central")
	p.config.File = "prometheus.yaml.gz"
	var zipped bytes.Buffer
	w := gzip.NewWriter(&zipped)
	if _, err := io.WriteString(w, "a: $(POD_NAME)\n"); err != nil {
		t.Fatal(err)
	}
	testkit.Must(t, w.Close())
	testkit.Must(t, testkit.WriteVolume(p.config.Source, map[string]testkit.VolumeFile{p.config.File: {Mode: 0o644, Data: zipped.Bytes()}}))
	p.start(t)
	p.eventually(t, "something is served", func() bool { return p.served() != "" })
	r, err := gzip.NewReader(strings.NewReader(p.served()))
	testkit.Must(t, err)
	text, err := io.ReadAll(r)
	testkit.Must(t, err)
	if !strings.Contains(string(text), "name: ampbridge-central\n") || !strings.Contains(string(text), "a: $(POD_NAME)\n") {
		t.Errorf("served %q", text)
	}
}

// TestWithoutAConfig: a sidecar without a config mirrors, and is alive.
func TestWithoutAConfig(t *testing.T) {
	t.Parallel()
	p := newPod(t, 3600)
	p.text = "{broken"
	p.start(t)
	p.eventually(t, "the source is mirrored", func() bool { return p.served() == user })
	p.configure(t, user+"# changed\n")
	p.eventually(t, "a change is mirrored", func() bool { return strings.Contains(p.served(), "# changed") })
	if err := sidecar.Ready(p.options()); err != nil {
		t.Error(err)
	}
}

// TestMountPoints: the mount points of other volumes exist before Prometheus starts.
func TestMountPoints(t *testing.T) {
	t.Parallel()
	p := newPod(t, 3600)
	p.config.MountPoints = []sidecarconfig.MountPoint{{Name: "rules"}, {Name: "web.yml", File: true}}
	p.start(t)
	p.eventually(t, "the source is mirrored", func() bool { return sidecar.Ready(p.options()) == nil })
	for name, dir := range map[string]bool{"rules": true, "web.yml": false} {
		if info, err := os.Lstat(filepath.Join(p.config.Target, name)); err != nil || info.IsDir() != dir {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
}

// TestUnusableSTSSettings: with a proxy that is not a URL there is no session, but a configuration.
func TestUnusableSTSSettings(t *testing.T) {
	t.Parallel()
	p := newPod(t, 3600, "central")
	p.config.STS.ProxyURL = "::"
	p.wait = 0
	p.start(t)
	p.eventually(t, "the relay's block is served", func() bool { return p.relays("central") })
	p.eventually(t, "the status says why", func() bool {
		return strings.Contains(p.status(t).Destinations[0].Error, "sts.proxyURL")
	})
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	p := newPod(t, 3600, "central")
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	testkit.Must(t, err)
	p.metrics = socket.Addr().String()
	testkit.Must(t, socket.Close())
	p.config.Destinations[0].Block.SendNativeHistograms = true
	p.start(t)
	p.eventually(t, "the block is served", func() bool { return p.has("central") })
	get := func() string {
		text, _ := testkit.Request(t.Context(), http.MethodGet, "http://"+p.metrics+"/metrics") // it may not be served yet
		return text
	}
	p.eventually(t, "metrics of what is served and of its session", func() bool {
		return strings.Contains(get(), `ampbridge_config_renders_total{result="rendered"} 1`) &&
			strings.Contains(get(), `ampbridge_session_renewals_total{destination="central",result="success"} 1`)
	})
	for _, want := range []string{
		`ampbridge_session_valid{destination="central"} 1`,
		`ampbridge_session_expiry_timestamp_seconds{destination="central"} 1.`,
		`ampbridge_session_renewals_total{destination="central",result="success"} 1`,
		`ampbridge_config_renders_total{result="rendered"} 1`,
		`ampbridge_config_last_render_timestamp_seconds 1.`,
		`ampbridge_config_info{rendered_hash="`,
		`ampbridge_gap_seconds{destination="central"} `,
		`ampbridge_block_served{destination="central"} 1`,
		`ampbridge_block_own_entry{destination="central"} 0`,
		`ampbridge_block_field_omitted{destination="central",field="send_native_histograms",since="2.40"} 1`,
		`ampbridge_delivery{delivery="sigv4",destination="central"} 1`,
		`ampbridge_session_not_taken{destination="central"} 0`,
		`ampbridge_relay_requests_in_flight 0`,
	} {
		if !strings.Contains(get(), want) {
			t.Errorf("metrics lack %s:\n%s", want, get())
		}
	}
	p.configure(t, "remote_write: [{name: mine, url: 'https://vpce/workspaces/ws-central/api/v1/remote_write'}]\n")
	p.eventually(t, "metrics tell of the user's own entry", func() bool {
		return strings.Contains(get(), `ampbridge_block_own_entry{destination="central"} 1`) &&
			strings.Contains(get(), `ampbridge_block_served{destination="central"} 0`)
	})
	p.eventually(t, "the log and the status name it", func() bool {
		return strings.Contains(p.log.String(), "the block is missing") &&
			strings.Contains(p.status(t).Destinations[0].Skipped, `"mine" writes to this workspace already`)
	})
}

// TestMetricsPortTaken: the sidecar works without its metrics port.
func TestMetricsPortTaken(t *testing.T) {
	t.Parallel()
	p := newPod(t, 3600, "central")
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	testkit.Must(t, err)
	defer func() { _ = socket.Close() }()
	p.metrics = socket.Addr().String()
	p.start(t)
	p.eventually(t, "the block is served", func() bool { return p.has("central") })
	p.eventually(t, "the log says so", func() bool { return strings.Contains(p.log.String(), "metrics are not served") })
}

func TestNoSecretsInLogOrStatus(t *testing.T) {
	t.Parallel()
	p := servedPod(t, 3600)
	credentials := testkit.ReadFile(t, p.config.Credentials)
	status, err := json.Marshal(p.status(t))
	testkit.Must(t, err)
	secrets := map[string]bool{testkit.ReadFile(t, p.Token): true}
	for line := range strings.Lines(credentials) {
		if _, value, ok := strings.Cut(line, " = "); ok {
			secrets[strings.TrimSpace(value)] = true
		}
	}
	if len(secrets) != 4 {
		t.Fatalf("%d secrets found, want token, id, key and session token", len(secrets))
	}
	for secret := range secrets {
		if strings.Contains(p.log.String()+string(status)+p.served(), secret) {
			t.Error("a secret is shown")
		}
	}
}

// TestCAFile: the file with the policy's CA and the system's roots exists before the block that
// names it. If the file cannot be written, Prometheus gets the relay.
func TestCAFile(t *testing.T) {
	t.Parallel()
	server := httptest.NewTLSServer(nil)
	server.Close()
	authority := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	for _, writable := range []bool{true, false} {
		t.Run(strconv.FormatBool(writable), func(t *testing.T) {
			t.Parallel()
			p := newPod(t, 3600, "central")
			file := filepath.Join(filepath.Dir(p.config.Credentials), "central.ca.pem")
			if !writable {
				file = filepath.Join(file, "none")
				p.wait = 0
			}
			p.config.Destinations[0].Block.TLS = &policy.BlockTLS{CAFile: file}
			p.config.Destinations[0].AMP.CABundle = authority
			p.start(t)
			p.eventually(t, "a block is served", func() bool { return p.has("central") || p.relays("central") })
			text, _ := os.ReadFile(file)
			if written := bytes.HasSuffix(text, []byte(p.config.Destinations[0].AMP.CABundle)); written != writable || p.has("central") != writable {
				t.Errorf("the CA file has the CA: %v; served %s", written, p.served())
			}
			if strings.Contains(p.served(), "ca_file") != writable {
				t.Errorf("served %s", p.served())
			}
		})
	}
}
