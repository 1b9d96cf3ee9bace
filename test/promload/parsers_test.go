package promload

import (
	"bytes"
	"testing"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/promconfig"
)

// TestParsersDiffer: Prometheus loads each of these by YAML package v2. Package
// v4, which edits, reads another thing or nothing at all. The blocks get in all
// the same, and nothing else changes.
func TestParsersDiffer(t *testing.T) {
	blocks := newBlocks(t)
	const head = "global: {scrape_interval: 15s}\n"
	for name, in := range map[string]string{
		"flow-colon": head + "remote_write: []\nscrape_configs:\n- job_name: a\n  static_configs: [{targets: [localhost:]}]\n",
		"colon before a comma": head + "remote_write: # none\nscrape_configs:\n- job_name: a\n  static_configs: [{targets: [a:, " +
			"b:], labels: {x:, y: z}}]\n",
		"colon, flow list": head + "scrape_configs: [{job_name: a, static_configs: [{targets: [a:]}]}]\nremote_write: [{url: " +
			"'http://x/y]'}, # ]\n  {url: http://z}\n]\n",
		"colon, flow root":         "{global: {scrape_interval: 15s}, scrape_configs: [{job_name: a, static_configs: [{targets: [a:]}]}]}\n",
		"colon, several documents": "%YAML 1.1\n---\n" + head + "rule_files: [a:]\n---\n[other:]\n",
		"second document broken":   head + "---\n[\n",
		"less indented, ignored":   "  global: {scrape_interval: 15s}\n  rule_files: [a:]\nglobal: {scrape_interval: 1s}\n",
		"null list":                head + "remote_write: ~ # $(X)\nrule_files: [a:]\n",
		"octal and binary": head + "runtime: {gogc: 0b1010}\nscrape_configs: [{job_name: 0o17, sample_limit: 017, " +
			"target_limit: 0x1F, label_limit: 1_000}]\nremote_write: []\n",
		"booleans": head + "scrape_configs: [{job_name: yes, honor_labels: on, honor_timestamps: off, " +
			"enable_compression: no}, {job_name: \"y\", honor_labels: True}]\nremote_write: []\n",
		"numbers as labels": "global: {external_labels: {a: 0777, b: 1:20, c: 1e3, d: 0o17, e: yes, f: ~, g: .inf, h: " +
			"2026-11-28, i: +12, j: 1_0}}\nremote_write: []\n",
		"timestamps":           "global: {external_labels: {a: 2026-11-28T10:00:00Z, b: 2026-11-28 10:00:00.5 +1}}\nremote_write: []\n",
		"explicit keys":        "? global\n: {scrape_interval: 15s}\n? remote_write\n: [{url: http://x}]\n? rule_files\n: [a]\n",
		"escaped key":          head + "\"remote\\u005fwrite\": [{url: http://x}]\nrule_files: [a]\n",
		"tabs":                 "global:\t{scrape_interval:\t15s}\t# x\nrule_files:\n- a\t\nremote_write:\t[]\t# y\n",
		"binary":               "global: {external_labels: {a: !!binary aGVsbG8=}}\nremote_write: []\n",
		"tags":                 "global: {external_labels: {a: !!str 5, b: !!str yes, c: ! x}}\nremote_write: []\n",
		"long key":             "global: {external_labels: {? l" + string(bytes.Repeat([]byte("o"), 2000)) + "ng : x}}\nremote_write: []\n",
		"anchor on a key":      "&k global: {scrape_interval: 15s}\nremote_write: []\n",
		"anchor is used again": "global: {external_labels: {a: &x one, b: *x, c: &x two, d: *x}}\nremote_write: []\n",
		"merge keys": "global: {<<: [&a {scrape_interval: 15s}, &b {evaluation_interval: 30s}], external_labels: {<<: {m: " +
			"n}, a: b}}\nremote_write: []\n",
		"remote_write is merged": "<<: {remote_write: [{url: http://x}]}\n" + head,
		"a list that is shared":  "remote_write: &w\n- &e {url: http://x}\nremote_read: *w\n" + head,
		"carriage returns":       "global: {scrape_interval: 15s}\r\nremote_write: []\r\nrule_files: [a:]\r\n",
		"folded and literal": "rule_files:\n- >-\n  a\n  b\n- |-\n  remote_write: []\nglobal: {external_labels: {a: 'x\n\n  y', " +
			"b: \"p\\\n  q\"}}\n",
	} {
		t.Run(name, func(t *testing.T) {
			outcome, err := check([]byte(in), blocks)
			if err != nil {
				t.Fatalf("%v\nof\n%s", err, in)
			}
			if outcome.skipped > 0 {
				t.Error("a block was left out")
			}
		})
	}
}

// TestOtherErrorsStay: what Prometheus refuses is refused as it was.
func TestOtherErrorsStay(t *testing.T) {
	for name, in := range map[string]string{
		"duplicate key":   "rule_files: [a]\nrule_files: [b]\n",
		"duplicate label": "global: {external_labels: {a: b, a: c}}\n",
		"unknown field":   "x-anchors: {}\n",
		"excessive aliasing": "a: &a [1,1,1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c " +
			"[*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f " +
			"[*e,*e,*e,*e,*e,*e,*e,*e,*e,*e]\n",
		"tab as indentation":   "global:\n\tscrape_interval: 15s\n",
		"merge of a scalar":    "<<: x\n",
		"anchor within itself": "global: &g {external_labels: *g}\n",
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := load([]byte(in)); err == nil {
				t.Fatal("Prometheus loads it: this is a test of what it refuses")
			}
			result, err := promconfig.Render([]byte(in), []policy.Block{newBlocks(t)[0].Block}, "1")
			if err != nil {
				return // the user's own bytes are served
			}
			if _, err := load(result.Config); err == nil {
				t.Errorf("what Prometheus refuses became what it loads:\n%s", result.Config)
			}
		})
	}
}
