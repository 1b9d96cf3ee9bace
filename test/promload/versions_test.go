package promload

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// loader returns a function that loads a configuration as that version of Prometheus
// does. Each but the one of this module is a program of a module of its own.
func loader(t *testing.T, version string) func(text []byte) error {
	t.Helper()
	if version == "3.15" {
		return func(text []byte) error {
			_, err := load(text)
			return err
		}
	}
	program := filepath.Join(t.TempDir(), "load")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".")
	build.Dir = filepath.Join("versions", version)
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	return func(text []byte) error {
		command := exec.CommandContext(t.Context(), program)
		command.Stdin = bytes.NewReader(text)
		output, err := command.CombinedOutput()
		if err != nil {
			return &refused{strings.TrimSpace(string(output)), err}
		}
		return nil
	}
}

// refused is what a loader printed.
type refused struct {
	text  string
	cause error
}

func (r *refused) Error() string { return r.text }
func (r *refused) Unwrap() error { return r.cause }

// options are the options of a policy: none, all with a proxy, and all with the
// environment's proxy.
const options = `
apiVersion: ampbridge.io/v1alpha1
kind: Policy
cluster: {name: dev}
trust: {manage: none}
destinations:
- {name: plain, workspace: "arn:aws:aps:eu-west-1:111122223333:workspace/ws-0001"}
- &all
  name: all
  workspace: arn:aws:aps:eu-west-1:111122223333:workspace/ws-0002
  remoteWrite:
    queueConfig:
      {capacity: 5000, maxShards: 50, minShards: 2, maxSamplesPerSend: 500, batchSendDeadline: 1m30s,
       minBackoff: 30ms, maxBackoff: 1m, sampleAgeLimit: 1h}
    writeRelabelConfigs:
    - {sourceLabels: [__name__, job], separator: ;, regex: "(go|process)_.*;.*", action: drop}
    - {sourceLabels: [pod], modulus: 4, targetLabel: __tmp_shard, action: hashmod}
    sendNativeHistograms: true
    sendExemplars: true
    metadata: {send: false}
    remoteTimeout: 1m30s
    proxyURL: http://proxy.example:3128
- name: environment
  workspace: arn:aws:aps:eu-west-1:111122223333:workspace/ws-0003
  remoteWrite: {proxyFromEnvironment: true, retryOn429: false}
`

// TestBlocksOfEachVersion: the block of each kind, with every option and with none,
// loads in the configuration loader of that version. So does the block for a version
// that is not known. The loaders are strict: they refuse a field that is too new.
func TestBlocksOfEachVersion(t *testing.T) {
	p, err := policy.Parse([]byte(options))
	testkit.Must(t, err)
	for _, version := range []string{"2.8", "2.22", "2.42", "3.1", "3.15"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			v, err := policy.ParseVersion(version)
			testkit.Must(t, err)
			load := loader(t, version)
			expect := func(loads bool, b policy.Block, name string) {
				t.Helper()
				text, err := yaml.Marshal(map[string]any{"remote_write": []policy.Block{b}})
				testkit.Must(t, err)
				if err := load(text); (err == nil) != loads {
					t.Errorf("%s: loads %t, want %t: %v\n%s", name, err == nil, loads, err, text)
				}
			}
			signs := !v.Before(policy.Version{Major: 2, Minor: 26})
			newest := v == policy.Version{Major: 3, Minor: 15}
			for _, d := range p.Destinations {
				bySigV4 := d.GroupBlock("pair/prometheus-k8s").WithReplica("prometheus-0")
				bySigV4.TLS = &policy.BlockTLS{CAFile: "/var/run/secrets/ampbridge.io/credentials/" + d.Name + ".ca.pem"}
				byRelay := d.Block("dev").ByRelay("127.0.0.1:39999", "/var/run/secrets/ampbridge.io/credentials/relay-password")
				for _, known := range []policy.Version{v, {}} {
					b, _ := byRelay.For(known)
					expect(true, b, d.Name+" by relay, for "+known.String())
					b, _ = bySigV4.For(known)
					expect(signs, b, d.Name+" by sigv4, for "+known.String())
				}
				fitting, omitted := byRelay.For(v)
				expect(len(omitted) == 0 && fitting.Name != "", byRelay, d.Name+" by relay, with every field")
				if newest && len(omitted) > 0 {
					t.Errorf("%s: the newest version does without %v", d.Name, omitted)
				}
			}
		})
	}
}
