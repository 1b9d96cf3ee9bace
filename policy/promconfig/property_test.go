package promconfig_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	yamlv2 "go.yaml.in/yaml/v2"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/promconfig"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// cases is how many configurations the property test makes.
const cases = 4000

// TestBlockInBlockOut makes configurations from unusual pieces. It checks that the blocks are
// added, that nothing else changes, and that Remove reverts it all.
func TestBlockInBlockOut(t *testing.T) {
	for seed := range uint64(cases) {
		config := generate(rand.New(rand.NewPCG(seed, 0)))
		in := []byte(config)
		if err := yamlv2.Unmarshal(in, new(any)); err != nil {
			t.Fatalf("seed %d: the generator makes no YAML: %v\n%s", seed, err, config)
		}
		// One signs itself. The other writes to the relay, without a name.
		relayed, _ := block(t, "backup").ByRelay("127.0.0.1:39999", "/password").For(policy.Version{})
		two := []policy.Block{block(t, "central"), relayed}
		got, err := promconfig.Render(in, two, "1")
		if err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, config)
		}
		checkRendered(t, in, got, len(two))
		checkRemoved(t, in, got.Config)
		if strings.Count(string(got.Config), "$(") > strings.Count(config, "$(") {
			t.Errorf("an expansion was added to\n%s", got.Config)
		}
		if t.Failed() {
			t.Fatalf("seed %d:\n%s", seed, config)
		}
	}
}

// generate makes a valid configuration from pieces that have caused faults before.
func generate(r *rand.Rand) string {
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	if r.IntN(20) == 0 {
		return pick("", "\n", "# only\n# comments\n", "---\n", "null\n", "--- ~\n...\n", "{}", "---\n{}\n# end")
	}
	entry := func() string {
		return pick(
			"url: http://mimir/api/v1/push\n  name: mimir%d\n",
			"{url: 'http://a%d', name: \"b%[1]d\"} # inline\n",
			"url: http://x%d # a comment\n  # another\n  write_relabel_configs:\n  - action: drop\n    regex: |\n      many\n\n      lines\n",
			"&e%d\n  url: http://anchored\n",
			"<<: {url: http://merged%d}\n  name: ampbridge-central\n",
			"url: \"http://escaped\\u00e9\\t%d\"\n",
			"url: http://w%d/workspaces/ws-backup/api/v1/remote_write\n",
		)
	}
	fields := []string{
		pick(
			"global: {scrape_interval: 15s}\n",
			"global:\n  scrape_interval: 15s # c\n  external_labels: {a: $(POD_NAME), b: \"\\u263a\", 'c': yes}\n",
			"global:\n    scrape_interval:   30s\n\n",
		),
		pick(
			"",
			"rule_files: [a, b,\n  c]\n",
			"rule_files:\n  - a\n  # between\n  - \"b\tc\"\n",
			"rule_files:\n- >-\n  folded\n  text\n\n  more\n",
		),
		pick(
			"",
			"x-flow: {a, b: , c: [1, ~]}\n",
			"alerting:\n  alert_relabel_configs:\n  - &drop {action: labeldrop, regex: x}\n  - *drop\n",
			"# lonely comment\n\n",
			"storage: {tsdb: {out_of_order_time_window: 30m}}\n",
		),
		pick(
			"",
			"scrape_configs: []\n",
			"scrape_configs:\n- job_name: a\n  static_configs:\n  - targets: ['a:1', \"b:2\"]\n    labels: {x: 0777, y: 1:20, z: 1e3, n: ~}\n",
			"scrape_configs:\n  - job_name: |+\n      keep\n\n\n",
		),
	}
	n := 1 + r.IntN(3)
	list := "\n"
	indent := pick("", "  ")
	for i := range n {
		text := fmt.Sprintf(strings.ReplaceAll(entry(), "\n  ", "\n"+indent+"  "), i)
		list += indent + "- " + text
	}
	fields = append(fields, pick(
		"", "", "remote_write: []\n", "remote_write: # nothing yet\n", "remote_write: ~\n", "remote_write: [ {url: http://flow} ]\n",
		"remote_write:"+list, "remote_write:"+list, "remote_write: &w"+list+"x-copy: *w\n", "<<: {remote_write: [{url: http://merged}]}\n",
		"x-list: &l"+list+"remote_write: *l\n", "'remote_write':"+list,
	))
	r.Shuffle(len(fields), func(i, j int) { fields[i], fields[j] = fields[j], fields[i] })
	text := strings.Join(fields, pick("", "", "# between\n", "\n"))
	switch r.IntN(8) {
	case 0:
		text = "%YAML 1.1\n---\n" + text
	case 1:
		text = "--- # first\n" + text + "...\n"
	case 2:
		text += "---\nsecond: {document: true}\n"
	}
	switch r.IntN(6) {
	case 0:
		text = strings.ReplaceAll(text, "\n", "\r\n")
	case 1:
		text = "\ufeff" + text
	case 2:
		text = strings.TrimSuffix(text, "\n")
	case 3:
		text += "# the end"
	}
	return text
}

// FuzzRender: a text that is not refused keeps its meaning. It skips text that the other YAML
// parser, which decides, cannot read.
func FuzzRender(f *testing.F) {
	inputs, err := filepath.Glob("testdata/*.in.yaml")
	testkit.Must(f, err)
	for _, input := range inputs {
		in, err := os.ReadFile(input)
		testkit.Must(f, err)
		f.Add(in)
	}
	for seed := range uint64(50) {
		f.Add([]byte(generate(rand.New(rand.NewPCG(seed, 1)))))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var before tree
		if err := yamlv2.UnmarshalStrict(in, &before); err != nil {
			return
		}
		got, err := promconfig.Render(in, blocks(t), "1")
		if err != nil {
			return
		}
		checkRendered(t, in, got, 1)
		checkRemoved(t, in, got.Config)
	})
}
