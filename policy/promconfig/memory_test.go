package promconfig

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/testkit"
)

const childVariable = "PROMCONFIG_TEST_CHILD"

func TestMain(m *testing.M) {
	if text, child := os.LookupEnv(childVariable); child {
		if err := editInChild(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// shape makes configurations: a head, as many numbered pieces as the size needs, and a tail.
type shape struct {
	head  string
	piece func(n int) string
	tail  string
}

func (s shape) of(size int) []byte {
	var b bytes.Buffer
	b.WriteString(s.head)
	for n := 0; b.Len() < size; n++ {
		b.WriteString(s.piece(n))
	}
	b.WriteString(s.tail)
	return b.Bytes()
}

// numbered returns pieces of one format, with their number.
func numbered(format string) func(n int) string {
	return func(n int) string { return fmt.Sprintf(format, n) }
}

// same returns pieces without a number.
func same(piece string) func(int) string { return func(int) string { return piece } }

const flowJob = "{job_name: f-%d, static_configs: [{targets: [a, b], labels: {x: y}}]}"

var shapes = map[string]shape{
	"jobs": {"scrape_configs:\n", numbered(`- job_name: pods-%d
  honor_labels: true
  kubernetes_sd_configs:
  - role: pod
    namespaces:
      names: [team-%[1]d]
  relabel_configs: # what the pod's annotations ask for
  - source_labels: [__meta_kubernetes_pod_annotation_prometheus_io_scrape]
    action: keep
    regex: "true"
  - source_labels: [__meta_kubernetes_pod_annotation_prometheus_io_port, __meta_kubernetes_pod_ip]
    action: replace
    regex: (\d+);((([0-9]+?)(\.|$)){4})
    replacement: $2:$1
    target_label: __address__
  - action: labelmap
    regex: __meta_kubernetes_pod_label_(.+)
`), ""},
	"anchors": {"x-common: &common {scrape_interval: 30s, scheme: https}\nscrape_configs:\n", numbered(
		"- <<: *common\n  job_name: a-%d\n  relabel_configs: &r%[1]d\n" +
			"  - {action: labeldrop, regex: x%[1]d}\n  metric_relabel_configs: *r%[1]d\n"), ""},
	"strings": {"scrape_configs:\n", numbered(
		"- job_name: s-%d\n  metric_relabel_configs:\n  - {action: drop, source_labels: [__name__], regex: '" +
			strings.Repeat("container_network_[a-z]+|", 400) + "'}\n"), ""},
	"targets": {"scrape_configs:\n- job_name: one\n  static_configs:\n  - targets:\n", func(n int) string {
		return fmt.Sprintf("    - 10.%d.%d.%d:9100\n", n>>16&255, n>>8&255, n&255)
	}, ""},
	"crlf": {"scrape_configs:\r\n", numbered(
		"- job_name: c-%d\r\n  static_configs:\r\n  - targets: ['a:1', \"b:2\"]\r\n    labels: {x: 0777, y: 1:20}\r\n"), ""},
	"flow":      {"{scrape_configs: [", numbered(flowJob + ",\n"), "]}\n"},
	"flow-line": {"{scrape_configs: [", numbered(flowJob + ","), "]}\n"},
	"flow-list": {"scrape_configs: [", numbered(flowJob + ",\n"), "]\n"},
	"flow-jobs": {"scrape_configs:\n", numbered("- " + flowJob + "\n"), "\n"},
	"comments": {"scrape_configs:\n", numbered(
		"# job %d\n# is one\n- job_name: c-%[1]d # a name\n  # the path\n  metrics_path: /x # a path\n"), ""},
	"commas":  {"rule_files: [", same("a,"), "]\n"},
	"empty":   {"", numbered("%d:\n"), ""},
	"nested":  {"x:\n", same("- - - - []\n"), ""},
	"nothing": {"x: [", same("[],"), "]\n"},
}

// measurement is what an edit in a child process took, in bytes.
type measurement struct{ config, need, peak int64 }

// editInChild edits a configuration within the memory that the estimate names, and prints
// a measurement.
func editInChild(text string) error {
	var shape string
	var size int
	var m strategy
	if _, err := fmt.Sscan(text, &shape, &size, &m); err != nil {
		return err
	}
	config := shapes[shape].of(size)
	b := policy.Block{Name: "ampbridge-central", URL: "https://aps-workspaces.eu-west-1.amazonaws.com/workspaces/ws-1/api/v1/remote_write"}
	need := needs(config, m, 0)
	if m != splice {
		s, err := parse(config)
		if err != nil {
			return err
		}
		for _, part := range parts(s.documents[0]) {
			need = max(need, needs(config, m, count(part)))
		}
	}
	debug.FreeOSMemory()
	base := resident("VmRSS:")
	debug.SetMemoryLimit((base + need) * 4 / 5)                                   // as in the sidecar
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil { // VmHWM begins again
		return err
	}
	if _, err := renderBy([]strategy{m}, need+64<<10, config, []policy.Block{b}, "1"); err != nil {
		return err
	}
	_, err := fmt.Println(len(config), need, resident("VmHWM:")-base)
	return err
}

// resident reads a field of proc_pid_status(5), in bytes.
func resident(field string) int64 {
	status, _ := os.ReadFile("/proc/self/status") // without it: 0, which fails the test
	_, rest, _ := strings.Cut(string(status), field)
	var kib int64
	_, _ = fmt.Sscan(rest, &kib)
	return kib << 10
}

// TestEstimate compares the estimated memory of edits with the memory that they take, each in its
// own process. The estimate must not be too low. If it were much too high, configurations that fit
// would be refused.
func TestEstimate(t *testing.T) {
	self, err := os.Executable()
	testkit.Must(t, err)
	measure := func(t *testing.T, shape string, size int, m strategy) (got measurement) {
		cmd := exec.CommandContext(t.Context(), self)
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d %d", childVariable, shape, size, m))
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		_, err = fmt.Sscan(string(out), &got.config, &got.need, &got.peak)
		testkit.Must(t, err)
		t.Logf("%4d KiB: needs %3d MiB, took %3d", got.config>>10, got.need>>20, got.peak>>20)
		if got.peak <= 0 || got.peak > got.need {
			t.Errorf("took %d bytes, more than the estimate's %d", got.peak, got.need)
		}
		return got
	}
	for shape := range shapes {
		for m, name := range map[strategy]string{splice: "splice", rewrite: "rewrite"} {
			t.Run(shape+"/"+name, func(t *testing.T) {
				got := measure(t, shape, 512<<10, m)
				if lavish := shape == "nested" || shape == "targets" || shape == "strings"; !lavish && got.need > 3*got.peak {
					t.Errorf("took %d bytes, far less than the estimate's %d", got.peak, got.need)
				}
			})
		}
	}
	// This is the reason for the default limit of 256 MiB, of which the relay may use a part.
	t.Run("4 MB", func(t *testing.T) {
		if got := measure(t, "jobs", 4e6, splice); got.need > 128<<20 {
			t.Errorf("needs %d MiB", got.need>>20)
		}
	})
}

// TestPartsWriteTheSame: a tree that is written in parts has the same text as one that is written
// at once, with comments and later documents.
func TestPartsWriteTheSame(t *testing.T) {
	for name, shape := range shapes {
		config := append([]byte("# the head\n\n"), shape.of(512<<10)...)
		if name == "jobs" {
			config = append(config, "# the foot\n---\nsecond: document\n"...)
		}
		s, err := parse(config)
		testkit.Must(t, err)
		got, err := s.write("")
		testkit.Must(t, err)
		s, err = parse(config)
		testkit.Must(t, err)
		for _, d := range s.documents {
			nameNulls(d, false)
		}
		want, err := dump("\n", s.documents...)
		testkit.Must(t, err)
		if want = bytes.ReplaceAll(want, []byte("\r\n"), []byte("\n")); !bytes.Equal(bytes.ReplaceAll(got, []byte("\r\n"), []byte("\n")), want) {
			t.Errorf("%s: other text in parts:\n%s", name, cmp.Diff(string(want), string(got)))
		}
	}
}
