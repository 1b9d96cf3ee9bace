package promconfig

import (
	"bytes"
	"regexp"
)

// site is the place for the blocks in the user's text. It is a guess from the text's lines.
// The comparison of the result decides whether it is right.
type site struct {
	from, until int // the bytes that are replaced
	// lead comes before the blocks: the rest of a line, a line break or a comma.
	lead string
	// indent is the blocks' indentation in spaces.
	indent int
	// field is true if remote_write itself must be written with the blocks. flow is true if the
	// blocks are in a flow collection.
	field, flow bool
}

// keyLine matches the line of the field, without its indentation.
var keyLine = regexp.MustCompile(`^(remote_write|"remote_write"|'remote_write')[ \t]*:(?:[ \t]+|$)`)

// nullOrEmpty matches a value that has no entry and ends with its line.
var nullOrEmpty = regexp.MustCompile(`^(?:\[[ \t]*\]|~|null|Null|NULL)([ \t]+#.*)?[ \t]*$`)

// locate finds the place in the first document of text.
func locate(text []byte) (site, bool) {
	d := outline(text)
	switch {
	case d.odd:
		return site{}, false
	case d.flow >= 0:
		return d.inFlowRoot(text)
	case d.key < 0:
		return site{from: d.end, until: d.end, lead: d.lineBreak(text, d.end), indent: d.indent, field: true}, true
	}
	line := bytes.TrimRight(text[d.key:d.keyEnd], "\r\n")
	value := line[len(keyLine.Find(line)):]
	switch {
	case len(value) == 0 || value[0] == '#' || value[0] == '&':
		at := d.keyEnd // the value is null
		if d.list >= 0 {
			at = d.listEnd
		}
		return site{from: at, until: at, lead: d.lineBreak(text, at), indent: max(d.list, d.indent)}, true
	case nullOrEmpty.Match(value):
		from := d.key + len(line) - len(value)
		lead := string(bytes.TrimLeft(nullOrEmpty.FindSubmatch(value)[1], " \t"))
		for lead == "" && (text[from-1] == ' ' || text[from-1] == '\t') {
			from--
		}
		return site{from: from, until: d.keyEnd, lead: lead + newlineOf(text), indent: d.indent}, true
	case value[0] == '[':
		return inFlow(text[:d.end], d.key+len(line)-len(value))
	}
	return site{}, false
}

// document is what the lines of the first document show.
type document struct {
	// odd is true if the content begins in a way that leaves no place for a field.
	odd    bool
	end    int // the document's end
	indent int // the indentation of the root's fields
	flow   int // the offset of a flow root; -1 if the root is not a flow mapping
	// key is the offset of the field; -1 if there is none. keyEnd is the end of its line.
	key, keyEnd int
	// list is the indentation of the field's block list; -1 if there is none.
	list, listEnd int
}

// outline reads single lines, and does not know scalars of several lines. If such a scalar
// contains a line that looks like a field, the place is wrong, and the comparison refuses it.
func outline(text []byte) document {
	d := document{end: len(text), flow: -1, key: -1, list: -1}
	offset, content, begun, opened := 0, 0, false, false
	if bytes.HasPrefix(text, bom) {
		offset = len(bom)
	}
	over := false // the field's value has ended
lines:
	for line := range bytes.Lines(text[offset:]) {
		start := offset
		offset += len(line)
		body := bytes.TrimRight(line, " \t\r\n")
		inner := bytes.TrimLeft(body, " ")
		indent := len(body) - len(inner)
		switch {
		case isMarker(body, "...") || isMarker(body, "---") && (begun || opened):
			d.end = start
			break lines
		case isMarker(body, "---"):
			opened = true
			rest := bytes.TrimLeft(body[3:], " \t")
			if len(rest) == 0 || rest[0] == '#' {
				continue
			}
			if begun = true; rest[0] != '{' {
				d.odd = true
				return d
			}
			d.flow = start + len(body) - len(rest)
			continue
		case len(inner) == 0 || inner[0] == '#' || !begun && !opened && inner[0] == '%':
			continue
		case begun && d.flow < 0 && indent < d.indent:
			d.end = content // Prometheus ignores everything after this
			break lines
		case !begun:
			begun, d.indent = true, indent
			if inner[0] == '{' {
				d.flow = start + indent
			}
		}
		item := inner[0] == '-' && (len(inner) == 1 || inner[1] == ' ' || inner[1] == '\t')
		switch {
		case d.key >= 0 && d.list < 0 && !over && item && indent >= d.indent:
			d.list = indent
		case indent <= d.indent && !item && d.key >= 0 && !over:
			over, d.listEnd = true, content
		}
		if d.key < 0 && indent == d.indent && keyLine.Match(inner) {
			d.key, d.keyEnd = start+indent, offset
		}
		content = offset
	}
	if !over {
		d.listEnd = d.end
	}
	return d
}

func isMarker(line []byte, marker string) bool {
	return bytes.HasPrefix(line, []byte(marker)) && (len(line) == len(marker) || line[len(marker)] == ' ' || line[len(marker)] == '\t')
}

// lineBreak returns what must come before a line that is inserted at that offset.
func (document) lineBreak(text []byte, at int) string {
	if at == 0 || text[at-1] == '\n' || at == len(bom) && bytes.HasPrefix(text, bom) {
		return ""
	}
	return newlineOf(text)
}

func (d document) inFlowRoot(text []byte) (site, bool) {
	p, ok := inFlow(text[:d.end], d.flow)
	p.field = true
	// If the field exists already, its place must be found in a tree.
	return p, ok && !bytes.Contains(text[d.flow:p.from], []byte(key))
}

// inFlow returns the place before the bracket that closes the bracket at that offset.
func inFlow(text []byte, open int) (site, bool) {
	end, last := closing(text, open)
	p := site{from: end, until: end, flow: true}
	if bytes.IndexByte([]byte("[{,"), last) < 0 {
		p.lead = ", "
	}
	return p, end >= 0
}

// closing finds the bracket that closes the one at that offset, and the last byte before it that
// is not part of a space or a comment. end is -1 if no bracket closes it.
func closing(text []byte, open int) (end int, last byte) {
	depth := 0
	for i := open; i < len(text); i++ {
		c := text[i]
		begins := bytes.IndexByte([]byte("[{,:"), last) >= 0 // whether a scalar begins here
		switch {
		case c == '#' && bytes.IndexByte([]byte(" \t\r\n"), text[i-1]) >= 0:
			for i+1 < len(text) && text[i+1] != '\n' {
				i++
			}
			continue
		case (c == '"' || c == '\'') && begins:
			for i++; i < len(text) && text[i] != c; i++ {
				if c == '"' && text[i] == '\\' {
					i++
				}
			}
			last = ' ' // a quote after this one continues the scalar
			if i+1 < len(text) && text[i+1] == '\'' {
				last = ','
			}
			continue
		case c == '[' || c == '{':
			depth++
		case c == ']' || c == '}':
			if depth--; depth == 0 {
				return i, last
			}
		}
		if bytes.IndexByte([]byte(" \t\r\n"), c) < 0 {
			last = c
		}
	}
	return -1, last
}

// newlineOf returns the line ending of the text's first line.
func newlineOf(text []byte) string {
	if i := bytes.IndexByte(text, '\n'); i > 0 && text[i-1] == '\r' {
		return "\r\n"
	}
	return "\n"
}
