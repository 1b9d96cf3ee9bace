package promload

import (
	"fmt"
	"strings"
	"unicode"
)

// node is a piece of YAML whose style is still open.
type node any

type (
	mapping []field
	field   struct {
		key   string
		value node
	}
	list []node
	// text is a string, and stays one in whatever style it is written.
	text string
	// plain is written as it is.
	plain string
	// anchor is one value that may appear in several places: defined in the
	// first, and an alias in the others.
	anchor struct {
		name  string
		value node
	}
)

// anchored gives a value a name at times.
func (g *generator) anchored(value node) node {
	if g.one(2) {
		return value
	}
	return g.named(value)
}

func (g *generator) named(value node) node {
	g.anchors++
	return anchor{fmt.Sprintf("a%d", g.anchors), value}
}

// document writes a whole stream.
func (g *generator) document(root mapping) string {
	w := &writer{generator: g, defined: map[string]bool{}, step: 1 + g.IntN(4)}
	var body string
	if len(root) == 0 || g.one(10) {
		body = w.flow(root, 0) + "\n"
	} else {
		body = w.fields(root, 0)
	}
	switch g.IntN(10) {
	case 0:
		body = "%YAML 1.1\n---\n" + body
	case 1:
		body = "--- # first\n" + body + "...\n"
	case 2:
		body += "---\nsecond: {document: true}\n"
	case 3:
		body = "# head $(X)\n\n---\n" + body + "...\n# after\n"
	}
	switch g.IntN(8) {
	case 0:
		body = strings.ReplaceAll(body, "\n", "\r\n")
	case 1:
		body = "\ufeff" + body
	case 2:
		body = strings.TrimSuffix(body, "\n")
	case 3:
		body += "# the end"
	case 4:
		body += "\n\n  \n"
	}
	return body
}

// writer writes nodes, each in a style of its own.
type writer struct {
	*generator
	defined map[string]bool
	step    int // of indentation, in spaces
}

func pad(indent int) string { return strings.Repeat(" ", indent) }

// remark is a comment on the line of something, or nothing.
func (w *writer) remark() string {
	if w.one(12) {
		return w.pick(" # remark", " #", " # $(X) %", "  ", " # - url: x")
	}
	return ""
}

// between is what stands between the lines.
func (w *writer) between(indent int) string {
	if w.one(12) {
		return w.pick(
			"\n",
			pad(indent)+"# comment\n",
			"# at the margin\n",
			pad(indent)+"# two\n\n"+pad(indent+2)+"# deep $(X)\n",
			"   \n",
			pad(indent)+"#remote_write:\n",
		)
	}
	return ""
}

// fields writes a mapping's lines.
func (w *writer) fields(m mapping, indent int) string {
	var b strings.Builder
	for _, f := range m {
		b.WriteString(w.between(indent) + pad(indent) + w.key(f.key) + ":" + w.value(f.value, indent, false))
	}
	return b.String()
}

func (w *writer) key(name string) string {
	switch {
	case name == "<<":
		return name
	case w.one(20) || strings.ContainsAny(name, "[]"):
		return quoted(name)
	}
	return name
}

// value writes what stands after "key:" or "-", to the end of its lines.
func (w *writer) value(n node, indent int, item bool) string {
	head := ""
	if a, ok := n.(anchor); ok {
		if w.defined[a.name] {
			return " *" + a.name + w.remark() + "\n"
		}
		w.defined[a.name] = true
		head, n = " &"+a.name, a.value
	}
	if s, ok := n.(text); ok && strings.Contains(string(s), "\n") && w.one(2) {
		return head + w.literal(string(s), indent)
	}
	switch v := n.(type) {
	case mapping:
		if len(v) == 0 || w.one(5) {
			break
		}
		if item && head == "" && !w.one(4) {
			// The first field on the dash's line.
			inner := w.fields(v, indent+2)
			if strings.HasPrefix(inner, pad(indent+2)) && !strings.HasPrefix(strings.TrimLeft(inner, " "), "#") &&
				strings.TrimSpace(strings.SplitN(inner, "\n", 2)[0]) != "" {
				return " " + inner[indent+2:]
			}
			return "\n" + inner
		}
		return head + w.remark() + "\n" + w.fields(v, indent+w.step)
	case list:
		if len(v) == 0 || w.one(5) {
			break
		}
		at := indent
		if w.one(2) || item {
			at += w.step
		}
		var b strings.Builder
		b.WriteString(head + w.remark() + "\n")
		for _, entry := range v {
			b.WriteString(w.between(at) + pad(at) + "-" + w.value(entry, at, true))
		}
		return b.String()
	}
	return strings.TrimSuffix(head+" "+w.flow(n, indent+1), " ") + w.pick(w.remark(), w.remark(), w.remark(), "\t# after a tab") + "\n"
}

// literal is a block scalar. Its indentation is always told, since the text
// may begin with spaces.
func (w *writer) literal(s string, indent int) string {
	body := strings.TrimRight(s, "\n")
	chomp := "-"
	switch trailing := len(s) - len(body); {
	case trailing == 1 && body != "":
		chomp = ""
	case trailing > 0:
		chomp = "+"
	}
	// The indicator counts from the parent's indentation.
	step := 1 + w.IntN(4)
	lines := strings.Split(body, "\n")
	for i, line := range lines {
		if line != "" {
			lines[i] = pad(indent+step) + line
		}
	}
	trailing := strings.Repeat("\n", max(0, len(s)-len(body)-1))
	return fmt.Sprintf(" |%d%s\n%s\n%s", step, chomp, strings.Join(lines, "\n"), trailing)
}

// flow writes a node without regard to lines, deeper than indent.
func (w *writer) flow(n node, indent int) string {
	// Breaks are allowed within brackets only.
	gap := func() string {
		if w.one(10) {
			return w.pick("", "  ", "\n"+pad(indent+1), " # in flow\n"+pad(indent+1), "\n\n"+pad(indent+2))
		}
		return " "
	}
	switch v := n.(type) {
	case anchor:
		if w.defined[v.name] {
			return "*" + v.name + " " // a comma right behind would be part of the name
		}
		w.defined[v.name] = true
		return "&" + v.name + " " + w.flow(v.value, indent)
	case mapping:
		parts := make([]string, len(v))
		for i, f := range v {
			parts[i] = gap() + w.key(f.key) + ": " + w.flow(f.value, indent)
		}
		return "{" + strings.Join(parts, ",") + gap() + "}"
	case list:
		parts := make([]string, len(v))
		for i, entry := range v {
			parts[i] = gap() + w.flow(entry, indent)
		}
		return "[" + strings.Join(parts, ",") + gap() + "]"
	case plain:
		return string(v)
	case text:
		return w.scalar(string(v))
	}
	panic(fmt.Sprintf("no YAML for %T", n))
}

// scalar writes a string in one of the styles that can carry it.
func (w *writer) scalar(s string) string {
	printable := !strings.ContainsFunc(s, func(r rune) bool {
		return !unicode.IsGraphic(r) && r != '\t' || r == '\ufeff' || r == '\u0085' || r == '\u2028'
	})
	switch {
	case bare(s) && !w.one(4):
		return s
	case printable && w.one(2):
		return "'" + strings.ReplaceAll(s, "'", "''") + "'"
	}
	return quoted(s)
}

// bare tells whether a string may stand without quotes, and is one there.
func bare(s string) bool {
	if s == "" || strings.TrimSpace(s) != s {
		return false
	}
	for _, r := range s {
		if (r < 'a' || r > 'z') && !strings.ContainsRune("/._ $()%-é☺𝄞", r) {
			return false
		}
	}
	return !strings.ContainsRune("-%. ", rune(s[0])) && s != "yes" && s != "null"
}

// quoted writes a string with YAML's escapes.
func quoted(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteString(`\` + string(r))
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteRune(r) // raw, as people paste it
		case r == '\u0085' || r == '\u2028' || r == '\ufeff' || r < ' ':
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
