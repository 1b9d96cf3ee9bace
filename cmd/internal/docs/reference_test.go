package docs

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v4"

	"github.com/ampbridge/ampbridge/cmd/internal/cli"
	"github.com/ampbridge/ampbridge/test/testkit"
)

const generated = "<!-- Made by `make docs` from %s. Do not edit. -->\n\n"

func golden(t *testing.T, page, text string) {
	t.Helper()
	testkit.Golden(t, filepath.Join(root, page), strings.TrimRight(text, "\n")+"\n")
}

// docs/reference/cli.md is the tree of commands.
func TestCommandLine(t *testing.T) {
	var b strings.Builder
	b.WriteString("# Command line\n\n")
	fmt.Fprintf(&b, generated, "the commands themselves (cmd/internal/cli)")
	b.WriteString("`ampbridge COMMAND --help` prints the same. ")
	b.WriteString("Exit statuses: 0 success, 1 failure, 2 a wrong command line;\n[doctor](doctor.md) also has 3: no check failed, " +
		"and some were skipped.\n")
	all := commands(t)
	for _, c := range all {
		describe(&b, c)
	}
	describeConnection(&b, all)
	golden(t, "docs/reference/cli.md", b.String())
}

// commands returns the root command and all commands below it, hidden ones excepted.
func commands(t *testing.T) []*cobra.Command {
	t.Helper()
	var all []*cobra.Command
	var visit func(c *cobra.Command)
	visit = func(c *cobra.Command) {
		all = append(all, c)
		for _, child := range c.Commands() {
			if child.IsAvailableCommand() && child.Name() != "help" {
				visit(child)
			}
		}
	}
	tree := cli.New()
	tree.InitDefaultCompletionCmd()
	visit(tree)
	if len(all) < 10 {
		t.Fatalf("%d commands", len(all))
	}
	return all
}

func describe(b *strings.Builder, c *cobra.Command) {
	fmt.Fprintf(b, "\n## %s\n\n%s.\n", c.CommandPath(), strings.TrimSuffix(c.Short, "."))
	if c.Runnable() {
		fmt.Fprintf(b, "\n```\n%s\n```\n", c.UseLine())
	}
	if c.Long != "" {
		fmt.Fprintf(b, "\n```text\n%s\n```\n", strings.TrimSpace(c.Long))
	}
	if c.Example != "" {
		fmt.Fprintf(b, "\nExamples:\n\n```\n%s\n```\n", strings.Trim(c.Example, "\n"))
	}
	for _, group := range cli.FlagGroups(c) {
		if group.Heading == cli.KubernetesHeading {
			b.WriteString("\nIt also has the [flags for the connection to the cluster](#flags-for-the-connection-to-the-cluster).\n")
			continue
		}
		describeFlags(b, group)
	}
}

// describeFlags lists the flags of a group, except --help.
func describeFlags(b *strings.Builder, group cli.FlagGroup) {
	var rows []string
	group.Flags.VisitAll(func(f *pflag.Flag) {
		if f.Name != "help" {
			rows = append(rows, flag(f))
		}
	})
	if len(rows) > 0 {
		fmt.Fprintf(b, "\n%s:\n\n%s", group.Heading, strings.Join(rows, ""))
	}
}

// describeConnection lists the flags that every command has which reads a cluster.
func describeConnection(b *strings.Builder, all []*cobra.Command) {
	for _, c := range all {
		for _, group := range cli.FlagGroups(c) {
			if group.Heading == cli.KubernetesHeading {
				b.WriteString("\n## Flags for the connection to the cluster\n\nThey are those of kubectl. Every command that reads a " +
					"cluster has them.\n")
				describeFlags(b, group)
				return
			}
		}
	}
}

// flag returns a list item: the flag, and its description below it.
func flag(f *pflag.Flag) string {
	kind, text := pflag.UnquoteUsage(f)
	name := "--" + f.Name
	if f.Shorthand != "" {
		name = "-" + f.Shorthand + ", " + name
	}
	if kind != "" {
		name += " " + kind
	}
	standard := ""
	switch f.DefValue {
	case "", "false", "[]", "0", "0s":
	default:
		standard = " (default `" + f.DefValue + "`)"
	}
	return fmt.Sprintf("- `%s`%s\n%s", name, standard, wrap(escape(text), "  "))
}

// escape keeps Markdown and HTML from reading a plain text's characters as markup.
func escape(text string) string {
	return strings.NewReplacer("<", `\<`, "*", `\*`, "_", `\_`).Replace(text)
}

// wrap breaks a paragraph at 118 columns.
func wrap(text, indent string) string {
	var b strings.Builder
	width := 0
	for word := range strings.FieldsSeq(text) {
		length := len([]rune(word))
		switch {
		case width == 0:
			b.WriteString(indent)
			width = len(indent)
		case width+1+length > 118:
			b.WriteString("\n" + indent)
			width = len(indent)
		default:
			b.WriteByte(' ')
			width++
		}
		b.WriteString(word)
		width += length
	}
	b.WriteByte('\n')
	return b.String()
}

// metric is one metric as the source declares it.
type metric struct {
	name, kind, help string
	labels           []string
}

// docs/reference/metrics.md lists what the processes register.
func TestMetrics(t *testing.T) {
	var b strings.Builder
	b.WriteString("# Metrics\n\n")
	fmt.Fprintf(&b, generated, "the code that registers the metrics")
	b.WriteString("[Operations](../guides/operations.md) shows how to scrape each process, and the alerts.\n")
	b.WriteString("Sync and the webhook also have the metrics of the Go runtime (`go_*`, `process_*`).\n")
	total := 0
	for _, process := range []struct{ title, text, dirs string }{
		{"Webhook", "Port `metrics` of the Pods `ampbridge-webhook`.", "webhook webhook/certificates"},
		{
			"Sync", "Port `metrics` of the Pods `ampbridge-sync`. Only the leader counts; take the `max` or `sum` of all.",
			"cmd/internal/reconcile",
		},
		{"Auditor", "It runs in sync, and has the same port.", "webhook/audit"},
		{"Config sidecar", "Port `ampbridge` of each injected pod.", "webhook/sidecar webhook/sidecar/relay"},
	} {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n", process.title, process.text)
		var all []metric
		for dir := range strings.FieldsSeq(process.dirs) {
			all = append(all, declared(t, dir)...)
		}
		slices.SortFunc(all, func(x, y metric) int { return cmp.Compare(x.name, y.name) })
		for _, m := range all {
			total++
			labels := ""
			if len(m.labels) > 0 {
				labels = "{" + strings.Join(m.labels, ",") + "}"
			}
			kind := ""
			if m.kind != "" {
				kind = ", " + m.kind
			}
			fmt.Fprintf(&b, "\n- `%s%s`%s\n\n%s", m.name, labels, kind, wrap(escape(m.help), "  "))
		}
	}
	if total < 50 {
		t.Errorf("only %d metrics", total)
	}
	golden(t, "docs/reference/metrics.md", b.String())
}

// declared returns the metrics that the package's source declares: calls and options in
// which a string "ampbridge_…" is followed by a help text. A metric in a shape that this
// does not read is an error, so that no metric is left out.
func declared(t *testing.T, dir string) []metric {
	t.Helper()
	var found []metric
	names := map[string]bool{}
	for _, file := range parse(t, dir) {
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.BasicLit:
				if s := constant(n); strings.HasPrefix(s, "ampbridge_") {
					names[s] = true
				}
			case *ast.CallExpr:
				if m := called(n); m != nil {
					found = append(found, *m)
				}
			}
			return true
		})
	}
	for name := range names {
		if !slices.ContainsFunc(found, func(m metric) bool { return m.name == name && m.help != "" }) {
			t.Errorf("%s: the test cannot read how %s is declared", dir, name)
		}
	}
	return found
}

func parse(t *testing.T, dir string) []*ast.File {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(root, dir, "*.go"))
	testkit.Must(t, err)
	var files []*ast.File
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		testkit.Must(t, err)
		files = append(files, file)
	}
	if len(files) == 0 {
		t.Fatalf("no Go files in %s", dir)
	}
	return files
}

// called reads NewX(XOpts{…}, labels), NewDesc(name, help, labels, nil), and local functions:
// gauge(name, help), and desc(name, help, labels…).
func called(call *ast.CallExpr) *metric {
	function := ""
	switch f := call.Fun.(type) {
	case *ast.SelectorExpr:
		function = f.Sel.Name
	case *ast.Ident:
		function = f.Name
	}
	if len(call.Args) == 0 {
		return nil
	}
	m := metric{kind: strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(function, "New"), "Vec"))}
	if options, ok := call.Args[0].(*ast.CompositeLit); ok {
		for _, element := range options.Elts {
			pair, ok := element.(*ast.KeyValueExpr)
			if !ok {
				continue
			}
			key, ok := pair.Key.(*ast.Ident)
			switch {
			case ok && key.Name == "Name":
				m.name = constant(pair.Value)
			case ok && key.Name == "Help":
				m.help = constant(pair.Value)
			}
		}
	} else if len(call.Args) > 1 {
		m.name, m.help = constant(call.Args[0]), constant(call.Args[1])
		if m.kind == "desc" {
			m.kind = "" // its kind is not in the declaration
		}
	}
	if !strings.HasPrefix(m.name, "ampbridge_") {
		return nil
	}
	for i, argument := range call.Args[1:] {
		if list, ok := argument.(*ast.CompositeLit); ok {
			for _, label := range list.Elts {
				m.labels = append(m.labels, constant(label))
			}
		} else if label := constant(argument); label != "" && i > 0 {
			m.labels = append(m.labels, label)
		}
	}
	return &m
}

// constant returns the value of a string literal, or of several that are added.
func constant(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BasicLit:
		s, _ := strconv.Unquote(e.Value)
		return s
	case *ast.BinaryExpr:
		return constant(e.X) + constant(e.Y)
	}
	return ""
}

// docs/reference/values.md lists the chart's values: defaults and texts out of
// values.yaml, types out of values.schema.json.
func TestValues(t *testing.T) {
	var document yaml.Node
	testkit.Must(t, yaml.Unmarshal([]byte(read(t, "charts/ampbridge/values.yaml")), &document))
	var schema map[string]any
	testkit.Must(t, json.Unmarshal([]byte(read(t, "charts/ampbridge/values.schema.json")), &schema))
	var b strings.Builder
	b.WriteString("# Chart values\n\n")
	fmt.Fprintf(&b, generated, "charts/ampbridge/values.yaml and its schema")
	b.WriteString("[Install](../guides/install.md#values-that-matter) lists those that matter. ")
	b.WriteString("The chart refuses a value that is not here.\n")
	values(t, &b, document.Content[0], schema, "")
	golden(t, "docs/reference/values.md", b.String())
}

func values(t *testing.T, b *strings.Builder, mapping *yaml.Node, schema map[string]any, path string) {
	t.Helper()
	for i := 0; i < len(mapping.Content); i += 2 {
		key, content := mapping.Content[i], mapping.Content[i+1]
		at := strings.TrimPrefix(path+"."+key.Value, ".")
		of := property(schema, schema, key.Value)
		if of == nil {
			t.Errorf("values.schema.json has no %s", at)
			continue
		}
		if path == "" {
			fmt.Fprintf(b, "\n## %s\n", key.Value)
		}
		_, text, described := strings.Cut(key.HeadComment, "# -- ")
		if !described && content.Kind == yaml.MappingNode && len(content.Content) > 0 {
			of["$defs"], of["definitions"] = schema["$defs"], schema["definitions"]
			values(t, b, content, of, at)
			continue
		}
		fmt.Fprintf(b, "\n- `%s`%s\n", at, facts(t, content, of))
		if text = strings.ReplaceAll(text, "\n# ", " "); text != "" {
			text = strings.ReplaceAll(text, "](../../docs/", "](../")
			b.WriteString("\n" + wrap(strings.ReplaceAll(text, "](../reference/", "]("), "  "))
		}
	}
}

// property returns the schema of a field, with references followed.
func property(whole, of map[string]any, name string) map[string]any {
	properties, _ := of["properties"].(map[string]any)
	found, _ := properties[name].(map[string]any)
	if reference, ok := found["$ref"].(string); ok {
		at := any(whole)
		for step := range strings.SplitSeq(strings.TrimPrefix(reference, "#/"), "/") {
			holder, _ := at.(map[string]any)
			at = holder[step]
		}
		if target, ok := at.(map[string]any); ok {
			found = maps.Clone(target)
		}
	}
	return maps.Clone(found)
}

// facts returns the type, the allowed values and the default.
func facts(t *testing.T, content *yaml.Node, of map[string]any) string {
	t.Helper()
	var all []string
	switch kind := of["type"].(type) {
	case string:
		all = append(all, kind)
	case []any:
		var kinds []string
		for _, k := range kind {
			kinds = append(kinds, fmt.Sprint(k))
		}
		all = append(all, strings.Join(kinds, " or "))
	}
	if allowed, ok := of["enum"].([]any); ok {
		var names []string
		for _, value := range allowed {
			names = append(names, fmt.Sprintf("`%v`", value))
		}
		all = append(all, "one of "+strings.Join(names, ", "))
	}
	var v any
	testkit.Must(t, content.Decode(&v))
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	testkit.Must(t, encoder.Encode(v))
	switch standard := strings.TrimSpace(text.String()); standard {
	case `""`, "{}", "[]", "null":
	default:
		standard = "default `" + strings.Trim(standard, `"`) + "`"
		if len(standard) > 60 {
			standard = "\n  " + standard
		}
		all = append(all, standard)
	}
	if len(all) == 0 {
		return ""
	}
	return ": " + strings.ReplaceAll(strings.Join(all, ", "), " \n", "\n")
}
