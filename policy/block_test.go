package policy

import (
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"github.com/ampbridge/ampbridge/test/testkit"
)

func blockYAML(t *testing.T, b Block) string {
	t.Helper()
	text, err := yaml.Marshal(b)
	testkit.Must(t, err)
	return string(text)
}

func TestBlockGolden(t *testing.T) {
	minimal, full := load(t, "minimal.yaml"), load(t, "full.yaml")
	testkit.Golden(t, "testdata/block-minimal.yaml", blockYAML(t, minimal.Destinations[0].Block("dev")))
	testkit.Golden(t, "testdata/block-full.yaml", blockYAML(t, full.Destinations[0].Block("dev-aks")))
	testkit.Golden(t, "testdata/block-endpoint.yaml", blockYAML(t, full.Destinations[1].Block("dev-aks")))
	testkit.Golden(t, "testdata/block-ha.yaml", blockYAML(t, minimal.Destinations[0].GroupBlock("legacy-pair").WithReplica("prometheus-0")))
}

// TestRelayBlockKnowsNoAWS: a Prometheus of 2.8 can read it, and nothing in it depends on
// a session, on AWS, or on the version of Prometheus.
func TestRelayBlockKnowsNoAWS(t *testing.T) {
	full := load(t, "full.yaml").Destinations
	for i, want := range []string{"block-relay.yaml", "block-relay-endpoint.yaml"} {
		b, omitted := full[i].Block("dev").ByRelay("127.0.0.1:39999", "/secret/relay-password").For(Version{})
		text := blockYAML(t, b)
		testkit.Golden(t, "testdata/"+want, text)
		for _, word := range []string{"sigv4", "profile", "amazonaws", "retry_on_http_429"} {
			if strings.Contains(text, word) {
				t.Errorf("%s holds %s", want, word)
			}
		}
		if !strings.HasSuffix(b.URL, b.RelayPath()) && !strings.HasSuffix(b.URL, full[i].Block("dev").RelayPath()) {
			t.Errorf("%s: the URL is %s", want, b.URL)
		}
		for _, o := range omitted {
			if o.Field == "name" {
				t.Error("the name counts as an omission, which no user asked for")
			}
		}
	}
	named, _ := full[0].Block("dev").ByRelay("127.0.0.1:39999", "/p").For(Version{2, 15})
	if named.Name == "" {
		t.Error("Prometheus 2.15 knows names")
	}
}

// TestBlockOptions: every option of the policy stands in the block for sigv4. What
// concerns the way to AMP, and AMP's answers, is not in the block for the relay.
func TestBlockOptions(t *testing.T) {
	full := load(t, "full.yaml").Destinations
	first, second := full[0].Block("dev"), full[1].Block("dev")
	first.TLS = &BlockTLS{CAFile: "/secret/central.ca.pem"}
	for version, want := range map[Version][]string{
		{2, 26}: {
			"remote_timeout: 45s", "proxy_url: http://proxy.example:3128", "ca_file: /secret/central.ca.pem", "metadata_config:\n    send: false",
		},
		{3, 15}: {"remote_timeout: 45s", "proxy_url: http://proxy.example:3128", "send_exemplars: true", "retry_on_http_429: true"},
	} {
		b, _ := first.For(version)
		for _, line := range want {
			if text := blockYAML(t, b); !strings.Contains(text, line) {
				t.Errorf("%s lacks %s:\n%s", version, line, text)
			}
		}
	}
	if text := blockYAML(t, second); !strings.Contains(text, "proxy_from_environment: true") || strings.Contains(text, "retry_on_http_429") ||
		strings.Contains(text, "metadata_config") {
		t.Errorf("the second:\n%s", text)
	}
	for _, b := range []Block{first, second} {
		relayed, _ := b.ByRelay("127.0.0.1:39999", "/secret/relay-password").For(Version{3, 15})
		for _, word := range []string{"proxy", "tls_config", "429"} {
			if text := blockYAML(t, relayed); strings.Contains(text, word) {
				t.Errorf("the block for the relay holds %s:\n%s", word, text)
			}
		}
	}
	relayed, _ := first.ByRelay("127.0.0.1:39999", "/secret/relay-password").For(Version{3, 15})
	for _, line := range []string{"remote_timeout: 45s", "send_exemplars: true", "send: false"} {
		if text := blockYAML(t, relayed); !strings.Contains(text, line) {
			t.Errorf("the block for the relay lacks %s:\n%s", line, text)
		}
	}
	for _, send := range []bool{false, true} { // true is Prometheus's default
		d := load(t, "minimal.yaml").Destinations[0]
		d.RemoteWrite.Metadata.Send = &send
		if b := d.Block("dev"); (b.Metadata != nil) != !send {
			t.Errorf("metadata.send %t: %s", send, blockYAML(t, b))
		}
	}
}

// TestBlockNeverAsksSTS: with role_arn, Prometheus would call STS itself, and
// exit when it cannot.
func TestBlockNeverAsksSTS(t *testing.T) {
	for _, d := range load(t, "full.yaml").Destinations {
		if text := blockYAML(
			t,
			d.Block("c"),
		); strings.Contains(text, "role_arn") || !strings.Contains(text, "profile: ampbridge-"+d.Name) ||
			!strings.Contains(text, "region: "+d.Workspace.Region) {
			t.Errorf("%s:\n%s", d.Name, text)
		}
	}
}

func TestWithReplicaLeavesItsReceiver(t *testing.T) {
	b := load(t, "minimal.yaml").Destinations[0].Block("dev")
	before := blockYAML(t, b)
	first, second := b.WithReplica("p-0"), b.WithReplica("p-1")
	if blockYAML(t, b) != before || *first.WriteRelabelConfigs[1].Replacement != "p-0" ||
		*second.WriteRelabelConfigs[1].Replacement != "p-1" {
		t.Error("replicas share their rules")
	}
}

func TestPrometheusDurations(t *testing.T) {
	for text, want := range map[string]string{
		"1m30s": "90s", "0s": "", "1500ms": "1500ms", "30h": "30h", "5s": "5s", "1h30m": "90m", "60s": "1m", "100us": "", "1h0m1ms": "3600001ms",
	} {
		var d Duration
		if err := d.UnmarshalText([]byte(text)); err != nil || d.prometheus() != want {
			t.Errorf("%s → %q, want %q (%v)", text, d.prometheus(), want, err)
		}
	}
}
