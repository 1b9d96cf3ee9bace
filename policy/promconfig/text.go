package promconfig

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// expansion is the beginning of a variable for the operator's config-reloaders. They search the
// text, so the written text must not contain it in new places.
const expansion = "$("

// hidden matches spellings of a text that contains an expansion without showing it.
var hidden = regexp.MustCompile(`\\(x|u00|U000000)2[48]|\$\\\r?\n`)

// errUneditable is rare. It means YAML that the library cannot write back.
var errUneditable = errors.New("configuration uses YAML that cannot be written back unchanged: simplify its " +
	"comments, anchors or escapes")

// strategy is a way to write an edited configuration. The later ones keep less of the
// user's formatting, and work for more configurations.
type strategy int

const (
	splice  strategy = iota // the user's text, with the blocks put in
	rewrite                 // the tree, with its comments
	bare                    // the tree without comments, for comments that would break it
)

// inTurn tries one strategy after the other until one succeeds.
func inTurn(strategies []strategy, try func(strategy) ([]byte, error)) (out []byte, err error) {
	for _, m := range strategies {
		if out, err = try(m); !errors.Is(err, errUneditable) {
			return out, err
		}
	}
	return nil, err
}

// text writes the edited trees, with head as the first line. It frees the trees, because the
// result is parsed again, and two trees of a large configuration would need too much memory.
func (s *stream) text(head string, m strategy) (out []byte, err error) {
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
		allowed = math.MaxInt // if more are written than existed, an alias was replaced by a copy
	}
	escape := s.escapeExpansions()
	shape := s.shape()
	if out, err = s.write(head); err != nil {
		if large := (*TooLargeError)(nil); errors.As(err, &large) {
			return nil, err
		}
		return nil, fmt.Errorf("%w: %w", errUneditable, err)
	}
	if !s.means(out, shape) {
		return nil, errUneditable
	}
	if out = escape(out); bytes.Count(out, []byte(expansion)) > allowed {
		return nil, errUneditable
	}
	return out, nil
}

// means reports whether text has the edited trees' shape. It frees the trees.
func (s *stream) means(text []byte, shape uint64) bool {
	s.documents, s.added = nil, nil
	collect(text)
	again, err := parse(text)
	return err == nil && again.shape() == shape
}

// splice puts the blocks' text into the source. It frees the trees.
func (s *stream) splice(h header, p site) ([]byte, error) {
	escape := s.escapeExpansions()
	shape := s.shape() // before the blocks are written, which changes their trees
	blocks, err := s.blockText(p)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUneditable, err)
	}
	put := func(text []byte) []byte { return slices.Concat(s.source[:p.from], text, s.source[p.until:]) }
	if !s.opaque && !s.means(put(blocks), shape) {
		return nil, errUneditable
	}
	blocks = escape(blocks)
	start := 0
	if bytes.HasPrefix(s.source, bom) {
		start = len(bom)
	}
	h.at, h.length, h.cut = p.from-start, len(blocks), string(s.source[p.from:p.until])
	return slices.Concat([]byte(h.String()+s.newline()), put(blocks)[start:]), nil
}

// blockText returns the blocks as text for the site.
func (s *stream) blockText(p site) ([]byte, error) {
	blocks := &yaml.Node{Kind: yaml.SequenceNode, Content: s.added}
	if p.flow {
		blocks.Style = yaml.FlowStyle
	}
	node := blocks
	if p.field {
		node = &yaml.Node{Kind: yaml.MappingNode, Style: blocks.Style}
		appendField(node, blocks)
	}
	text, err := dump("\n", node)
	if err != nil {
		return nil, err
	}
	if p.flow {
		// Remove the brackets, because the site is inside the brackets of the user's list.
		text = bytes.TrimSpace(text)
		return slices.Concat([]byte(p.lead), text[1:len(text)-1]), nil
	}
	out := []byte(p.lead)
	for line := range bytes.Lines(text) {
		out = append(out, strings.Repeat(" ", p.indent)...)
		out = append(out, bytes.TrimSuffix(line, []byte("\n"))...)
		out = append(out, s.newline()...)
	}
	return out, nil
}

func (s *stream) newline() string { return newlineOf(s.source) }

// write writes the trees.
func (s *stream) write(head string) ([]byte, error) {
	var out bytes.Buffer
	if head != "" {
		out.WriteString(head + s.newline())
	}
	for i, d := range s.documents {
		nameNulls(d, false)
		if i > 0 {
			out.WriteString("---" + s.newline())
		}
		for _, part := range parts(d) {
			if err := enough(s.source, rewrite, count(part), s.memory); err != nil {
				return nil, err
			}
			text, err := dump(s.newline(), part)
			if err != nil {
				return nil, err
			}
			out.Write(text)
		}
	}
	return out.Bytes(), nil
}

// partNodes is the number of nodes above which a part of a document is divided.
const partNodes = 10_000

// parts divides a large document into nodes that give its text when they are written one
// after the other. The library keeps all events of one write in memory, several times the tree's
// size. The document is divided between the root's fields, and between the entries of their
// lists: an entry has the same indentation with and without its field.
func parts(document *yaml.Node) []*yaml.Node {
	if document.Kind != yaml.DocumentNode || len(document.Content) != 1 || count(document) < partNodes {
		return []*yaml.Node{document}
	}
	root := document.Content[0]
	if root.Kind != yaml.MappingNode || root.Style&yaml.FlowStyle != 0 || root.Anchor != "" || root.ShortTag() != "!!map" {
		return []*yaml.Node{document}
	}
	var list []*yaml.Node
	part, nodes := &yaml.Node{Kind: yaml.MappingNode}, 0
	end := func() {
		if len(part.Content) > 0 {
			list = append(list, part)
		}
		part, nodes = &yaml.Node{Kind: yaml.MappingNode}, 0
	}
	for i := 0; i+1 < len(root.Content); i += 2 {
		name, value := root.Content[i], root.Content[i+1]
		size := count(value)
		if nodes += size + 1; nodes > partNodes {
			end()
			nodes = size + 1
		}
		if value.Kind != yaml.SequenceNode || value.Style&yaml.FlowStyle != 0 || size <= partNodes {
			part.Content = append(part.Content, name, value)
			continue
		}
		chunks := chunks(value.Content)
		first := *value
		first.Content = chunks[0]
		part.Content = append(part.Content, name, &first)
		end()
		for _, chunk := range chunks[1:] {
			list = append(list, &yaml.Node{Kind: yaml.SequenceNode, Content: chunk})
		}
	}
	end()
	if len(list) == 0 {
		return []*yaml.Node{document}
	}
	last := len(list) - 1
	list[0].HeadComment, list[last].FootComment = root.HeadComment, root.FootComment
	for i, part := range list {
		list[i] = &yaml.Node{Kind: yaml.DocumentNode, Content: []*yaml.Node{part}}
	}
	list[0].HeadComment, list[last].FootComment = document.HeadComment, document.FootComment
	return list
}

// chunks divides a list's entries into shorter lists.
func chunks(entries []*yaml.Node) (list [][]*yaml.Node) {
	start, nodes := 0, 0
	for i, entry := range entries {
		if nodes += count(entry); nodes > partNodes {
			list = append(list, entries[start:i+1])
			start, nodes = i+1, 0
		}
	}
	if start < len(entries) || len(list) == 0 {
		list = append(list, entries[start:])
	}
	return list
}

// count returns the number of nodes in a tree.
func count(n *yaml.Node) (nodes int) {
	walk(n, func(*yaml.Node) { nodes++ })
	return nodes
}

// nameNulls writes null for empty values in flow collections, because the library
// would write them as empty strings.
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
	dumper, err := yaml.NewDumper(
		&out,
		yaml.WithIndent(2),
		yaml.WithCompactSeqIndent(),
		yaml.WithLineWidth(-1),
		yaml.WithUnicode(),
		yaml.WithLineBreak(lineBreak),
	)
	if err != nil {
		return nil, err
	}
	for _, d := range documents {
		if err := dumper.Dump(d); err != nil {
			return nil, err
		}
	}
	err = dumper.Close() // Close writes the rest
	return out.Bytes(), err
}

// escapeExpansions prevents the added blocks from introducing $(. It replaces the $ by a
// character that the source does not contain, and returns
// the function that turns this character into \x24.
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
