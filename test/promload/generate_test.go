package promload

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// generator makes configurations that Prometheus loads, of every field that
// people commonly have and in every style that YAML has. It is deterministic:
// the same seed makes the same text.
type generator struct {
	*rand.Rand
	anchors int
}

// generate makes one configuration.
func generate(seed uint64) string {
	g := &generator{Rand: rand.New(rand.NewPCG(seed, 0))}
	if g.IntN(50) == 0 {
		return g.pick(
			"",
			"\n",
			"# only\n# comments\n",
			"---\n",
			"null\n",
			"--- ~\n...\n",
			"{}",
			"---\n{}\n# end",
			"--- # nothing\n",
			"\ufeff# x\r\n",
		)
	}
	return g.document(g.config())
}

func (g *generator) pick(of ...string) string { return of[g.IntN(len(of))] }

func (g *generator) one(in int) bool { return g.IntN(in) == 0 }

// config is a configuration's tree.
func (g *generator) config() mapping {
	rule := g.anchored(g.relabel())
	static := g.anchored(g.static())
	fields := mapping{}
	optional := func(in int, name string, value func() node) {
		if g.IntN(in) == 0 {
			fields = append(fields, field{name, value()})
		}
	}
	if !g.one(6) {
		fields = append(fields, field{"global", g.global()})
	}
	optional(8, "runtime", func() node { return mapping{{"gogc", plain("42")}} })
	optional(3, "rule_files", func() node { return g.paths(".yml", ".yaml", "*.yml") })
	optional(8, "scrape_config_files", func() node { return g.paths(".yml") })
	optional(8, "storage", func() node {
		return mapping{
			{"tsdb", mapping{{"out_of_order_time_window", plain("30m")}}},
			{"exemplars", mapping{{"max_exemplars", plain("1000")}}},
		}
	})
	optional(8, "otlp", func() node {
		return mapping{{"promote_resource_attributes", list{text("x") + g.text(), text("service.name")}}}
	})
	optional(4, "alerting", func() node {
		return mapping{
			{"alert_relabel_configs", list{g.relabel(), rule}},
			{"alertmanagers", list{mapping{{"static_configs", list{static}}, {"timeout", plain("10s")}, {"path_prefix", text("/am")}}}},
		}
	})
	if !g.one(8) {
		fields = append(fields, field{"scrape_configs", g.jobs(rule, static)})
	}
	write, read := g.remotes(rule)
	for name, value := range map[string]node{"remote_write": write, "remote_read": read} {
		if value != nil {
			fields = append(fields, field{name, value})
		}
	}
	// The map's order must not show.
	if n := len(fields); n >= 2 && fields[n-1].key == "remote_write" {
		fields[n-1], fields[n-2] = fields[n-2], fields[n-1]
	}
	g.Shuffle(len(fields), func(i, j int) { fields[i], fields[j] = fields[j], fields[i] })
	if g.one(12) && len(fields) > 1 {
		// Some of it comes out of a merge key.
		n := 1 + g.IntN(len(fields)-1)
		merged := append(mapping{}, fields[:n]...)
		fields = append(mapping{{"<<", merged}}, fields[n:]...)
		if g.one(3) {
			fields[0].value = list{merged}
		}
	}
	if g.one(40) && len(fields) > 0 && fields[0].key != "<<" {
		// A merge key, before or after, that has other remote_writes.
		merge := field{"<<", mapping{{"remote_write", list{mapping{{"url", text("http://merged")}}}}}}
		at := g.IntN(2) * len(fields)
		fields = slices.Insert(fields, at, merge)
	}
	return fields
}

func (g *generator) global() node {
	fields := mapping{{"scrape_interval", plain(g.pick("15s", "1m", "1m30s"))}}
	if g.one(2) {
		fields = append(fields, field{"evaluation_interval", plain("30s")})
	}
	if !g.one(3) {
		labels := mapping{}
		for _, name := range []string{"cluster", "prometheus", "prometheus_replica", "région", "0day"} {
			if g.one(2) {
				labels = append(labels, field{name, g.text()})
			}
		}
		fields = append(fields, field{"external_labels", labels})
	}
	if g.one(6) {
		fields = append(fields, field{"query_log_file", text(g.path(".log"))})
	}
	return fields
}

func (g *generator) jobs(rule, static node) node {
	jobs := list{}
	base := g.anchored(mapping{{"scrape_interval", plain("30s")}, {"scrape_timeout", plain("5s")}, {"honor_labels", plain("true")}})
	for i := range g.IntN(4) {
		name := fmt.Sprintf("job-%d", i)
		if g.one(4) {
			name += " " + string(g.text())
		}
		job := mapping{{"job_name", text(name)}}
		if g.one(4) {
			job = append(mapping{{"<<", base}}, job...)
		}
		switch g.IntN(4) {
		case 0:
			job = append(job, field{"static_configs", list{static, g.static()}})
		case 1:
			job = append(
				job,
				field{
					"file_sd_configs",
					list{
						mapping{{"files", append(list{text("sd/*.json")}, g.paths(".json", ".yml")...)}, {"refresh_interval", plain("1m")}},
					},
				},
			)
		case 2:
			job = append(
				job,
				field{
					"kubernetes_sd_configs",
					list{mapping{{"role", plain("pod")}, {"namespaces", mapping{{"names", list{text("a"), text("b")}}}}}},
				},
			)
		}
		if g.one(3) {
			job = append(job, field{"relabel_configs", list{rule, g.relabel(), rule}}, field{"metric_relabel_configs", list{rule}})
		}
		if g.one(4) {
			job = append(job, field{"params", mapping{{"module", list{g.text()}}, {"match[]", list{text(`{job="a"}`)}}}})
		}
		if g.one(4) {
			job = append(job, g.access()...)
		}
		jobs = append(jobs, job)
	}
	return jobs
}

// access is how to get in somewhere, with paths that are relative to the
// configuration's directory.
func (g *generator) access() mapping {
	tls := field{
		"tls_config",
		mapping{{"ca_file", text(g.path(".crt"))}, {"insecure_skip_verify", plain(g.pick("true", "false", "yes", "off"))}},
	}
	switch g.IntN(3) {
	case 0:
		return mapping{{"basic_auth", mapping{{"username", g.text()}, {"password_file", text(g.path(""))}}}, tls}
	case 1:
		return mapping{{"authorization", mapping{{"type", text("Bearer")}, {"credentials_file", text(g.path(".token"))}}}}
	}
	return mapping{tls, {"follow_redirects", plain("false")}}
}

func (g *generator) static() node {
	fields := mapping{{"targets", list{text("localhost:9090"), text("[::1]:9100")}}}
	if g.one(2) {
		fields = append(fields, field{"labels", mapping{{"a", g.text()}, {"cluster", g.text()}}})
	}
	return fields
}

func (g *generator) relabel() node {
	return [](func() mapping){
		func() mapping {
			return mapping{{"action", plain("labeldrop")}, {"regex", text(g.pick("x|y", "pod_.+", `\d+`))}}
		},
		func() mapping {
			return mapping{{"source_labels", list{text("__name__"), text("le")}}, {"separator", text(g.pick(";", "", "\t", "@"))},
				{"regex", text("(a|b);.*")}, {"action", plain("drop")}}
		},
		func() mapping {
			return mapping{{"source_labels", list{text("cluster")}}, {"regex", text("")}, {"target_label", text("cluster")},
				{"replacement", g.text()}}
		},
		func() mapping { return mapping{{"target_label", text("t")}, {"replacement", text("$1-${2}%$(X)")}} },
	}[g.IntN(4)]()
}

// remotes are remote_write and remote_read; nil where there is none.
func (g *generator) remotes(rule node) (write, read node) {
	if g.one(6) {
		// One list in both fields, whichever comes first.
		both := g.named(list{mapping{{"url", text("http://both/api")}, {"name", text("both")}}})
		return both, both
	}
	if g.one(4) {
		read = list{mapping{{"url", text("http://read/api/v1/read")}, {"read_recent", plain("true")}}}
	}
	switch g.IntN(8) {
	case 0, 1:
		return nil, read
	case 2:
		return list{}, read
	case 3:
		return plain(g.pick("", "~", "null")), read
	}
	entries := list{}
	for i := range 1 + g.IntN(3) {
		entries = append(entries, g.anchored(g.entry(i, rule)))
	}
	return g.anchored(entries), read
}

func (g *generator) entry(i int, rule node) node {
	entry := mapping{{"url", text(fmt.Sprintf("https://mimir-%d.example/api/v1/push?tenant=%%2Fa", i))}}
	switch g.IntN(12) {
	case 0:
		entry[0].value = text("https://aps-workspaces.eu-west-1.amazonaws.com/workspaces/ws-backup/api/v1/remote_write")
		entry = append(entry, field{"sigv4", mapping{{"region", plain("eu-west-1")}, {"profile", text("mine")}}})
	case 1:
		entry = append(
			entry,
			field{"sigv4", mapping{{"region", plain("eu-west-1")}, {"role_arn", text("arn:aws:iam::111122223333:role/mine")}}},
		)
	case 2, 3, 4:
		entry = append(entry, g.access()...)
	}
	if name := g.pick("", "", "mine", "ampbridge-central", "ampbridge-central-2", "ampbridge-backup"); name != "" {
		entry = append(entry, field{"name", text(strings.Repeat(name+"/", i) + name)})
	}
	if g.one(3) {
		entry = append(entry, field{"headers", mapping{{"X-Scope-OrgID", g.text()}}})
	}
	if g.one(3) {
		entry = append(entry, field{"write_relabel_configs", list{rule, g.relabel()}})
	}
	if g.one(4) {
		entry = append(entry, field{"queue_config", mapping{{"max_shards", plain("0x10")}, {"batch_send_deadline", plain("5s")}}})
	}
	if g.one(6) {
		return append(mapping{{"<<", mapping{{"remote_timeout", plain("10s")}, {"send_exemplars", plain("true")}}}}, entry...)
	}
	return entry
}

func (g *generator) paths(suffixes ...string) list {
	paths := list{}
	for range g.IntN(3) {
		paths = append(paths, text(g.path(g.pick(suffixes...))))
	}
	return paths
}

func (g *generator) path(suffix string) string {
	return g.pick("a", "rules/b c", "/etc/abs/d", "../up/é", "./$(DIR)/e", "%f") + suffix
}

// text is a string of the kind that configurations stumble over.
func (g *generator) text() text {
	return text(g.pick(
		"plain",
		"two words",
		"",
		" ",
		"tab\there",
		"\tlead",
		"100%",
		"%d",
		"$(POD_NAME)",
		"a$(B)c",
		"$$(X)",
		"${HOME}",
		"$1",
		"é☺𝄞",
		"\u2028",
		"\u0085",
		"\u00a0",
		"yes",
		"0777",
		"1e3",
		"~",
		"null",
		"2026-11-22",
		"1:20",
		"- dash",
		"# hash",
		"a # b",
		"a: b",
		"{flow",
		"[list]",
		"*alias",
		"&anchor",
		"!tag",
		"|",
		">",
		"@at",
		"`tick`",
		`back\slash`,
		`"quoted"`,
		"it's",
		"two\nlines",
		"ends\n",
		"\n\nmany\n\n\nlines\n\n",
		"  indented\nless",
		"trailing ",
		"---",
		"...",
		"<<",
		"=",
		"?",
		"remote_write: []",
		"\ufeff",
		"\x07",
		strings.Repeat("long ", 60),
	))
}
