package promconfig_test

import (
	"maps"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	yamlv2 "go.yaml.in/yaml/v2"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/promconfig"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// block returns a block as the policy makes it.
func block(t testing.TB, name string) policy.Block {
	t.Helper()
	d := policy.Destination{Name: name}
	testkit.Must(t, d.Workspace.UnmarshalText([]byte("arn:aws:aps:eu-west-1:111122223333:workspace/ws-"+name)))
	return d.Block("dev")
}

func blocks(t testing.TB) []policy.Block { return []policy.Block{block(t, "central")} }

type tree map[any]any

// meaning returns the first document, the only one that Prometheus reads, as YAML package v2
// understands it. Most versions of Prometheus use this parser, and it is not the one under test.
func meaning(t testing.TB, config []byte) tree {
	t.Helper()
	var tree tree
	if err := yamlv2.Unmarshal(config, &tree); err != nil {
		t.Fatalf("%v in\n%s", err, config)
	}
	return tree
}

// split returns remote_write and the rest of a tree.
func split(t tree) (writes []any, rest tree) {
	rest = maps.Clone(t)
	delete(rest, "remote_write")
	writes, _ = t["remote_write"].([]any)
	return writes, rest
}

func same(t testing.TB, before, after any) string {
	t.Helper()
	return cmp.Diff(before, after, cmpopts.EquateNaNs(), cmpopts.EquateEmpty())
}

// rendered returns a configuration with all of [blocks].
func rendered(t *testing.T, in, generation string) promconfig.Result {
	t.Helper()
	got, err := promconfig.Render([]byte(in), blocks(t), generation)
	testkit.Must(t, err)
	return got
}

func TestGoldens(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil || len(inputs) == 0 {
		t.Fatal("no inputs", err)
	}
	for _, input := range inputs {
		t.Run(strings.TrimSuffix(filepath.Base(input), ".in.yaml"), func(t *testing.T) {
			in := testkit.ReadFile(t, input)
			got := rendered(t, in, "7")
			wanted := strings.Replace(input, ".in.", ".want.", 1)
			testkit.Golden(t, wanted, got.Config)
			checkRendered(t, []byte(in), got, 1)
			checkRemoved(t, []byte(in), got.Config)
		})
	}
}

// checkRendered checks that the user's part has the same meaning as before, and that n blocks with
// unused names follow the user's own entries.
func checkRendered(t testing.TB, in []byte, got promconfig.Result, n int) {
	t.Helper()
	before, restBefore := split(meaning(t, in))
	after, restAfter := split(meaning(t, got.Config))
	if diff := same(t, restBefore, restAfter); diff != "" {
		t.Errorf("the rest of the configuration changed:\n%s\nfrom %q\nto   %q", diff, in, got.Config)
	}
	if added := len(after) - len(before); added != n-len(got.Skipped) {
		t.Fatalf("%d entries more than before, want %d:\n%s", added, n-len(got.Skipped), got.Config)
	}
	if diff := same(t, before, after[:len(before)]); diff != "" {
		t.Errorf("the user's own entries changed:\n%s", diff)
	}
	names := map[any]bool{}
	for i, entry := range after {
		fields, _ := entry.(tree)
		name := fields["name"]
		relayed := fields["basic_auth"] != nil // it may have no name
		if i >= len(before) && (name == nil && !relayed || name != nil && names[name]) {
			t.Errorf("an entry has a name that is taken, %v:\n%s", name, got.Config)
		}
		names[name] = true
	}
}

// checkRemoved checks that Remove restores the configuration.
func checkRemoved(t testing.TB, in, rendered []byte) {
	t.Helper()
	back, err := promconfig.Remove(rendered)
	if err != nil {
		t.Fatalf("remove: %v from\n%s", err, rendered)
	}
	if diff := same(t, meaning(t, in), meaning(t, back)); diff != "" {
		t.Errorf("block in, block out gives another configuration:\n%s\nfrom %q\nvia  %q\nto   %q", diff, in, rendered, back)
	}
}

func TestRenderErrors(t *testing.T) {
	for name, tc := range map[string]struct{ in, want string }{
		"not YAML":           {"a: [1\n", "not YAML"},
		"tab":                {"a:\n\tb: 1\n", "not YAML"},
		"root is a list":     {"- a\n", "root is not a mapping"},
		"root is a string":   {"hello\n", "root is not a mapping"},
		"write is mapping":   {"remote_write: {url: x}\n", "line 1: remote_write is not a list"},
		"write is string":    {"\nremote_write: x\n", "line 2: remote_write is not a list"},
		"merged later":       {"remote_write: []\n<<: {remote_write: [{url: x}]}\n", "line 1: a merge key (<<) after remote_write replaces it"},
		"set twice":          {"remote_write: []\nremote_write: []\n", "set twice"},
		"new expansion":      {`{a: "$\x28b)", remote_write: []}`, "written back"},
		"v4 alone reads it":  {"a: !!float x\n", "Prometheus's own YAML parser cannot read it"},
		"a merge of itself":  {"x: &a {<<: *a}\n", "Prometheus's own YAML parser cannot read it: yaml: anchor 'a' value contains itself"},
		"merges in a circle": {"x: &a {y: &b {<<: *a}}\n<<: *b\n", "value contains itself"},
		"merges explode":     {mergeKeys(t), "Prometheus's own YAML parser cannot read it: yaml: document contains excessive aliasing"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := promconfig.Render([]byte(tc.in), blocks(t), "1")
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want one with %q", err, tc.want)
			}
		})
	}
	if _, err := promconfig.Render(nil, blocks(t), "a\nb"); err == nil {
		t.Error("a generation of two lines is accepted")
	}
}

func TestRenderWithoutBlocksIsVerbatim(t *testing.T) {
	odd := "\ufeff{a: 1,\tb: [ ]}  # odd"
	for name, bs := range map[string][]policy.Block{"none": nil, "skipped": {block(t, "central")}} {
		in := odd
		if name == "skipped" {
			in = `remote_write: [  {url: "https://vpce/workspaces/ws-central/api/v1/remote_write/"}]`
		}
		got, err := promconfig.Render([]byte(in), bs, "1")
		if err != nil || string(got.Config) != in || len(got.Skipped) != len(bs) {
			t.Errorf("%s: %q, %v, %v", name, got.Config, got.Skipped, err)
		}
	}
	invalid := "a: [\n"
	if got, err := promconfig.Render([]byte(invalid), nil, "1"); err != nil || string(got.Config) != invalid {
		t.Errorf("invalid YAML without blocks: %q, %v", got.Config, err)
	}
}

func TestWhoWritesAlready(t *testing.T) {
	for skipped, urls := range map[bool][]string{
		true: {
			"https://aps-workspaces.eu-west-1.amazonaws.com/workspaces/ws-central/api/v1/remote_write",
			"https://aps-workspaces-fips.eu-west-1.amazonaws.com/workspaces/ws-central/api/v1/remote_write",
			"http://proxy:8005/amp/workspaces/ws-central/api/v1/remote_write",
		},
		false: {
			"https://aps-workspaces.eu-west-1.amazonaws.com/workspaces/ws-central2/api/v1/remote_write",
			"https://aps-workspaces.eu-west-1.amazonaws.com/workspaces/ws-central", "http://$(HOST)/api/v1/write", "%zz",
		},
	} {
		for _, url := range urls {
			in := "x: &base {url: '" + url + "'}\nremote_write:\n- <<: *base\n"
			for _, b := range []policy.Block{block(t, "central"), block(t, "central").ByRelay("127.0.0.1:39999", "/password")} {
				got, err := promconfig.Render([]byte(in), []policy.Block{b}, "1")
				if err != nil || len(got.Skipped) == 1 != skipped {
					t.Errorf("%s: skipped %v, %v; want %v", url, got.Skipped, err, skipped)
				}
			}
		}
	}
}

func TestGenerationChangesTheText(t *testing.T) {
	one, two := rendered(t, "global: {}\n", "1"), rendered(t, "global: {}\n", "2")
	if string(one.Config) == string(two.Config) {
		t.Error("two generations give the same text")
	}
	testkit.Equal(t, "the meaning of two generations", meaning(t, one.Config), meaning(t, two.Config))
}

// TestNoExpansionIsAdded: prometheus-operator's config-reloaders replace $(NAME) in the text. So
// the text of a block must not contain it, even if the block's regex does.
func TestNoExpansionIsAdded(t *testing.T) {
	b := block(t, "central")
	regex := "a$(b)$\u00e9"
	b.WriteRelabelConfigs = append(b.WriteRelabelConfigs, policy.BlockRelabel{Regex: &regex, Action: "labeldrop"})
	got, err := promconfig.Render([]byte("a: $(POD_NAME)\n"), []policy.Block{b}, "1")
	testkit.Must(t, err)
	if n := strings.Count(string(got.Config), "$("); n != 1 {
		t.Errorf("%d of $( in\n%s", n, got.Config)
	}
	writes, _ := split(meaning(t, got.Config))
	if text, err := yamlv2.Marshal(writes); err != nil || !strings.Contains(string(text), regex) {
		t.Errorf("the regex %q is not in\n%s", regex, text)
	}
}

// TestRemoveGivesBackTheText: if Render kept the user's text, Remove restores it exactly.
func TestRemoveGivesBackTheText(t *testing.T) {
	for _, name := range []string{"chart", "operator", "list-own", "scalars", "comments-only"} {
		in := testkit.ReadFile(t, "testdata/"+name+".in.yaml")
		back, err := promconfig.Remove(rendered(t, in, "1").Config)
		testkit.Must(t, err)
		testkit.Equal(t, name, in, string(back))
	}
}

func TestRemoveLeavesOthersAlone(t *testing.T) {
	in := "remote_write:\n- {name: ampbridge-central, url: 'http://own'}\n"
	if got, err := promconfig.Remove([]byte(in)); err != nil || string(got) != in {
		t.Errorf("text without a header: %q, %v", got, err)
	}
	checkRemoved(t, []byte(in), rendered(t, in, "1").Config)
}

// mergeKeys returns 16 levels of mappings. Each merges the one before 12 times, so 1.3 KB contain
// 12^16 paths.
func mergeKeys(t *testing.T) string {
	t.Helper()
	text := testkit.ReadFile(t, "testdata/merge-keys.yaml")
	return text
}

// TestTwoParsers: a text gets the block if Prometheus's own parser reads it, even if package v4
// reads it in another way or not at all. The rest stays byte for byte.
func TestTwoParsers(t *testing.T) {
	for name, in := range map[string]string{
		"colon in a flow list": "remote_write: []\nscrape_configs:\n- job_name: a\n  static_configs: [{targets: " +
			"[localhost:]}]\n",
		"colon, no list":            "global: {scrape_interval: 15s}\nx: [a:, b]\n",
		"colon, null list":          "remote_write: ~ # later\nx: {a:, b}\n",
		"colon, flow list":          "remote_write: [ {url: 'http://x]'}, # ]\n ]\nx: [localhost:]\n",
		"colon, flow root":          "{x: [localhost:], 'y': \"}\"}\n# end\n",
		"colon, two documents":      "x: [localhost:]\n---\ny: [localhost:]\n",
		"colon, end of document":    "--- # first\nx: [localhost:]\n...\n",
		"second document is broken": "a: 1\n---\n[\n",
		"what Prometheus ignores":   "  global: {scrape_interval: 15s}\n  x: [a:]\n# less\nglobal: {scrape_interval: 1s}\n",
		"octal":                     "remote_write: []\nx: {a: 0o17, b: 017, c: 0b11, d: 1_000, e: 1:20}\n",
		"booleans":                  "remote_write: []\nx: [yes, no, on, off, y, n, True]\n",
		"timestamp":                 "remote_write: []\nx: {2026-11-28: 2026-11-28T10:00:00Z}\n",
		"explicit keys":             "? x\n: [localhost]\n? remote_write\n: [{url: 'http://x'}]\n",
		"anchored list":             "remote_write: &w\n- url: http://x\ny: *w\nx: [localhost]\n",
		"list from a merge key":     "<<: &m {remote_write: [{url: 'http://x'}]}\ny: *m\n",
	} {
		t.Run(name, func(t *testing.T) {
			got := rendered(t, in, "1")
			checkRendered(t, []byte(in), got, 1)
			checkRemoved(t, []byte(in), got.Config)
			if back, err := promconfig.Remove(got.Config); strings.Contains(in, "localhost:]") && (err != nil || string(back) != in) {
				t.Errorf("not the user's text again: %v\n%s", err, back)
			}
		})
	}
}

// TestMergesAreVisitedOnce: a mapping that is merged in very many ways is visited once.
func TestMergesAreVisitedOnce(t *testing.T) {
	for name, in := range map[string]string{
		"before the list":  "x: &a {b: 1}\ny: &b {<<: [*a, *a]}\n<<: [*b, *b]\nremote_write: []\n",
		"a list of merges": "x: &a {url: 'http://x'}\ny: &b {<<: [*a, *a]}\nremote_write:\n- <<: [*b, *b]\n",
		"nested":           "x: &a {remote_write: [{url: 'http://x'}]}\n<<: {<<: {<<: *a}}\n",
	} {
		t.Run(name, func(t *testing.T) {
			checkRendered(t, []byte(in), rendered(t, in, "1"), 1)
		})
	}
}
