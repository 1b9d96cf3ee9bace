package promconfig

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v4"
)

// expansion is how config-reloaders of the operator mark a variable. They look
// at the text, so one that is written differently must not come to look like it.
const expansion = "$("

// hidden matches the spellings of a text that holds an expansion and does not
// show it.
var hidden = regexp.MustCompile(`\\(x|u00|U000000)2[48]|\$\\\r?\n`)

// errUneditable is rare: constructs that the YAML library cannot write back.
var errUneditable = errors.New("configuration uses YAML that cannot be written back unchanged: simplify its comments, anchors or escapes")

// manner is a way to write an edited configuration. The later ones keep less of
// how it looked, and work for more.
type manner int

const (
	spliced   manner = iota // the user's text, with the blocks put in
	rewritten               // the tree, with its comments
	bare                    // the tree: comments can be put where they break it
)

// inTurn tries one manner after the other, until one serves.
func inTurn(manners []manner, try func(manner) error) (err error) {
	for _, m := range manners {
		if err = try(m); !errors.Is(err, errUneditable) {
			return err
		}
	}
	return err
}

// text writes the edited trees, with head as the first line, and uses them up:
// what comes out is parsed again, and two trees of a large configuration would
// need too much memory at a time.
func (s *stream) text(head string, m manner, p span) (out []byte, err error) {
	allowed := bytes.Count(s.source, []byte(expansion))
	if m == bare {
		s.walk(func(n *yaml.Node) {
			for _, comment := range []*string{&n.HeadComment, &n.LineComment, &n.FootComment} {
				allowed -= strings.Count(*comment, expansion)
				*comment = ""
			}
		})
	}
	if !hidden.Match(s.source) {
		allowed = math.MaxInt // one more than before is a copy of what an alias stood for
	}
	escape := s.escapeExpansions()
	shape := s.shape()
	if m == spliced {
		out, err = s.splice(head, p)
	} else {
		out, err = s.write(head)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUneditable, err)
	}
	s.documents, s.added = nil, nil
	if again, err := parse(out); err != nil || again.shape() != shape {
		return nil, errUneditable
	}
	if out = escape(out); bytes.Count(out, []byte(expansion)) > allowed {
		return nil, errUneditable
	}
	return out, nil
}

// span is a piece of the source, in byte offsets that are at the start of a
// line or the end of the text, and what is to stand there instead.
type span struct {
	from, until int // until is 0 where there is no such piece
	blocks      []*yaml.Node
	indent      int  // of the blocks, in spaces
	field       bool // remote_write itself comes with them
}

// opening is the place where the blocks could stand as text. Whether they mean
// there what they should is for the comparison to tell: it need only be a good
// guess.
func (s *stream) opening(list *yaml.Node, was state) span {
	root := s.root()
	end := len(s.source)
	switch {
	case len(s.documents) != 1 || root == nil || root.Style&yaml.FlowStyle != 0:
		return span{}
	case was == absent:
		return span{from: end, until: end, blocks: s.added, indent: max(root.Column-1, 0), field: true}
	case was != listed || len(list.Content) == 0 || list.Style&yaml.FlowStyle != 0 || list.Anchor != "":
		return span{}
	}
	if next := fields(root)[0] + 1; next < len(root.Content) {
		end = s.aboveLine(root.Content[next].Line)
	}
	return span{from: end, until: end, blocks: s.added, indent: max(list.Column-1, 0)}
}

// insertion is the place where the added blocks stand as text, by as good a
// guess.
func (s *stream) insertion(list *yaml.Node, h header) span {
	first := len(items(list)) - len(h.added)
	if first < 0 || h.was != listed && h.was != absent {
		return span{}
	}
	added := list.Content[first:]
	line := added[0].Line
	if h.was == absent {
		line--
	}
	// The numbers of the lines are those that writing the blocks gives.
	text, err := dump("\n", copyOf(&yaml.Node{Kind: yaml.SequenceNode, Content: added}))
	if err != nil {
		return span{}
	}
	return span{from: s.lineStart(line), until: s.lineStart(added[0].Line + bytes.Count(text, []byte("\n")))}
}

// lineStart is the offset of the line of that number, the first being 1.
func (s *stream) lineStart(number int) int {
	offset := 0
	for line := range bytes.Lines(s.source) {
		if number--; number <= 0 {
			break
		}
		offset += len(line)
	}
	return offset
}

// aboveLine is the offset of the comments and empty lines right above the line
// of that number.
func (s *stream) aboveLine(number int) int {
	at, offset := 0, 0
	for line := range bytes.Lines(s.source) {
		if number--; number <= 0 {
			break
		}
		offset += len(line)
		if text := bytes.TrimSpace(line); len(text) > 0 && text[0] != '#' {
			at = offset
		}
	}
	return at
}

// splice replaces a piece of the source by the blocks' text.
func (s *stream) splice(head string, p span) ([]byte, error) {
	var text []byte
	if len(p.blocks) > 0 {
		blocks := &yaml.Node{Kind: yaml.SequenceNode, Content: p.blocks}
		if p.field {
			field := &yaml.Node{Kind: yaml.MappingNode}
			appendField(field, blocks)
			blocks = field
		}
		var err error
		if text, err = dump("\n", blocks); err != nil {
			return nil, err
		}
	}
	var out bytes.Buffer
	newline := s.newline()
	if head != "" {
		out.WriteString(head + newline)
	}
	out.Write(bytes.TrimPrefix(s.source[:p.from], bom))
	if len(text) > 0 && p.from > 0 && s.source[p.from-1] != '\n' {
		out.WriteString(newline)
	}
	for line := range bytes.Lines(text) {
		out.WriteString(strings.Repeat(" ", p.indent))
		out.Write(bytes.TrimSuffix(line, []byte("\n")))
		out.WriteString(newline)
	}
	out.Write(s.source[p.until:])
	return out.Bytes(), nil
}

// newline is how the source ends its first line.
func (s *stream) newline() string {
	if i := bytes.IndexByte(s.source, '\n'); i > 0 && s.source[i-1] == '\r' {
		return "\r\n"
	}
	return "\n"
}

// write writes the trees.
func (s *stream) write(head string) ([]byte, error) {
	for _, d := range s.documents {
		nameNulls(d, false)
	}
	text, err := dump(s.newline(), s.documents...)
	if err != nil {
		return nil, err
	}
	if head != "" {
		text = append([]byte(head+s.newline()), text...)
	}
	if s.commentsOnly() {
		text = append(text, commentLines(bytes.TrimPrefix(s.source, bom))...)
	}
	return text, nil
}

// nameNulls writes null for the nulls of flow collections that show nothing:
// the library makes empty strings of them.
func nameNulls(n *yaml.Node, flow bool) {
	flow = flow || n.Style&yaml.FlowStyle != 0
	if flow && isNull(n) && n.Value == "" {
		n.Value = "null"
	}
	for _, child := range n.Content {
		nameNulls(child, flow)
	}
}

func dump(newline string, documents ...*yaml.Node) ([]byte, error) {
	lineBreak := yaml.LineBreakLN
	if newline == "\r\n" {
		lineBreak = yaml.LineBreakCRLN
	}
	var out bytes.Buffer
	dumper, err := yaml.NewDumper(&out, yaml.WithIndent(2), yaml.WithCompactSeqIndent(), yaml.WithLineWidth(-1), yaml.WithUnicode(), yaml.WithLineBreak(lineBreak))
	if err != nil {
		return nil, err
	}
	for _, d := range documents {
		if err := dumper.Dump(d); err != nil {
			return nil, err
		}
	}
	err = dumper.Close() // which writes the rest
	return out.Bytes(), err
}

// commentsOnly: the source had no document to hang its comments on.
func (s *stream) commentsOnly() bool {
	return len(s.documents) == 1 && s.documents[0].Line == 0
}

// escapeExpansions makes the added blocks show no $( of their own: it puts a
// character that the source does not use in the place of the $, and returns
// the function that makes \x24 of it.
func (s *stream) escapeExpansions() func([]byte) []byte {
	stand := '\ue000'
	for bytes.ContainsRune(s.source, stand) {
		stand++
	}
	for _, block := range s.added {
		walk(block, func(n *yaml.Node) {
			if n.Kind == yaml.ScalarNode && strings.Contains(n.Value, expansion) {
				n.Style = yaml.DoubleQuotedStyle
				n.Value = strings.ReplaceAll(n.Value, expansion, string(stand)+"(")
			}
		})
	}
	return func(text []byte) []byte {
		return bytes.ReplaceAll(text, []byte(string(stand)), []byte(`\x24`))
	}
}
