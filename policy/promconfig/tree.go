package promconfig

import (
	"bytes"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"slices"

	"go.yaml.in/yaml/v4"
)

// stream is a configuration as trees.
type stream struct {
	source    []byte
	documents []*yaml.Node
	// opaque: package v4 cannot read the source, so there are no trees.
	opaque bool
	// added are the blocks' trees.
	added []*yaml.Node
	// memory is how many bytes there are; 0: there is no bound.
	memory int64
}

var bom = []byte("\ufeff")

func parse(config []byte) (*stream, error) {
	loader, err := yaml.NewLoader(bytes.NewReader(config))
	if err != nil {
		return nil, err
	}
	s := &stream{source: config}
	for {
		document := new(yaml.Node)
		switch err := loader.Load(document); {
		case errors.Is(err, io.EOF):
			return s, nil
		case err != nil:
			return nil, fmt.Errorf("configuration is not YAML: %w", err)
		}
		s.documents = append(s.documents, document)
	}
}

// root is the first document's content; nil without a document.
func (s *stream) root() *yaml.Node {
	if len(s.documents) == 0 || len(s.documents[0].Content) == 0 {
		return nil
	}
	return s.documents[0].Content[0]
}

// remoteWrite finds the list as Prometheus would; nil where there is none.
func (s *stream) remoteWrite() (list *yaml.Node, was state, err error) {
	root := s.root()
	switch {
	case len(s.documents) == 0:
		return nil, nothing, nil
	case root == nil || isNull(root):
		return nil, empty, nil
	case root.Kind != yaml.MappingNode:
		return nil, "", fmt.Errorf("configuration: line %d: the root is not a mapping", root.Line)
	}
	was = listed
	switch at := fields(root); len(at) {
	case 0:
		if list, was = lookup(root, key), merged; list == nil {
			return nil, absent, nil
		}
	case 1:
		if list = resolve(root.Content[at[0]]); list != lookup(root, key) {
			return nil, "", fmt.Errorf(
				"configuration: line %d: a merge key (<<) below %s replaces it: write the merge key first",
				root.Content[at[0]].Line,
				key,
			)
		}
	default:
		return nil, "", fmt.Errorf("configuration: line %d: %s is given twice", root.Content[at[1]].Line, key)
	}
	switch {
	case list.Kind == yaml.SequenceNode:
		return list, was, nil
	case isNull(list) && was == merged:
		return nil, merged, nil
	case isNull(list):
		return nil, null, nil
	}
	return nil, "", fmt.Errorf("configuration: line %d: %s is not a list", list.Line, key)
}

// insert puts the added blocks at the end of list, where was says it stood.
func (s *stream) insert(list *yaml.Node, was state) {
	target := &yaml.Node{Kind: yaml.SequenceNode}
	switch was {
	case nothing, empty:
		root := &yaml.Node{Kind: yaml.MappingNode}
		if was == nothing {
			s.documents = []*yaml.Node{{Kind: yaml.DocumentNode}}
		} else if old := s.root(); old != nil {
			root.HeadComment, root.FootComment = old.HeadComment, old.FootComment
		}
		s.documents[0].Content = []*yaml.Node{root}
		appendField(root, target)
	case absent:
		appendField(s.root(), target)
	case merged:
		// The list belongs to whoever else merges it: the field gets a copy.
		if list != nil {
			target.Content = copyOf(list).Content
		}
		appendField(s.root(), target)
	case null:
		root := s.root()
		value := root.Content[fields(root)[0]]
		detach(root, value)
		target.HeadComment, target.FootComment = value.HeadComment, value.FootComment
		root.Content[fields(root)[0]] = target
	case listed:
		root := s.root()
		at := fields(root)[0]
		if root.Content[at].Kind == yaml.AliasNode {
			target.Content = copyOf(list).Content
			root.Content[at] = target
			break
		}
		detach(root, list)
		list.Style &^= yaml.FlowStyle
		target = list
	}
	// Comments of a flow collection that holds block entries would end up in
	// places where they hide what follows.
	s.root().Style &^= yaml.FlowStyle
	target.Content = append(target.Content, s.added...)
}

// withdraw is insert undone.
func (s *stream) withdraw(list *yaml.Node, h header) {
	if list == nil {
		return
	}
	// The blocks are at the end; they may have no names.
	list.Content = list.Content[:max(0, len(list.Content)-len(h.added))]
	root := s.root()
	at := fields(root)
	if h.was == listed || len(at) == 0 {
		return
	}
	if h.was == null {
		root.Content[at[0]] = &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", HeadComment: list.HeadComment, FootComment: list.FootComment}
		return
	}
	root.Content = slices.Delete(root.Content, at[0]-1, at[0]+1)
	if h.was == empty {
		s.documents[0].Content[0] = &yaml.Node{
			Kind:        yaml.ScalarNode,
			Tag:         "!!null",
			Value:       "null",
			HeadComment: root.HeadComment,
			FootComment: root.FootComment,
		}
	}
}

func appendField(mapping, value *yaml.Node) {
	mapping.Content = append(mapping.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: key}, value)
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// resolve follows an alias. Aliases of aliases do not exist in YAML.
func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode && n.Alias != nil {
		return n.Alias
	}
	return n
}

// fields are the indexes in mapping.Content of the values of remote_write.
func fields(mapping *yaml.Node) (at []int) {
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if k := resolve(mapping.Content[i]); k.Kind == yaml.ScalarNode && k.Value == key {
			at = append(at, i+1)
		}
	}
	return at
}

// lookup finds the value of a mapping's field, in its merge keys too, as
// Prometheus's YAML library does: the last one in the text counts, whether it is
// the mapping's own or comes out of a merge key, and of several mappings that
// one key merges the first.
func lookup(n *yaml.Node, name string) *yaml.Node {
	return finder{name, map[*yaml.Node]*yaml.Node{}}.find(n)
}

// finder looks a field up. Each mapping is visited once, however often it is
// merged: mappings that merge each other can have more ways through them than
// there are atoms, and can be a circle.
type finder struct {
	name string
	// found has each mapping that was visited, with its field; nil: none, or
	// the mapping is being visited.
	found map[*yaml.Node]*yaml.Node
}

func (f finder) find(n *yaml.Node) (found *yaml.Node) {
	n = resolve(n)
	if n.Kind != yaml.MappingNode {
		return nil
	}
	if known, visited := f.found[n]; visited {
		return known
	}
	f.found[n] = nil
	for i := 0; i+1 < len(n.Content); i += 2 {
		field, value := resolve(n.Content[i]), n.Content[i+1]
		switch {
		case field.Kind != yaml.ScalarNode:
		case field.Value == f.name:
			found = resolve(value)
		case field.Value == "<<" && field.ShortTag() == "!!merge":
			sources := []*yaml.Node{value}
			if resolve(value).Kind == yaml.SequenceNode {
				sources = resolve(value).Content
			}
			for _, source := range slices.Backward(sources) {
				if merged := f.find(source); merged != nil {
					found = merged
				}
			}
		}
	}
	f.found[n] = found
	return found
}

// detach gives the aliases of n a copy of what n is now, so that a change to n
// does not show in them.
func detach(within, n *yaml.Node) {
	if n.Anchor == "" {
		return
	}
	for i, child := range within.Content {
		if child.Kind == yaml.AliasNode && child.Alias == n {
			within.Content[i] = copyOf(n)
			continue
		}
		detach(child, n)
	}
}

// copyOf is a deep copy without anchors, which may be defined only once where
// they are meant; aliases still refer to what they referred to.
func copyOf(n *yaml.Node) *yaml.Node {
	c := *n
	c.Anchor = ""
	c.Content = make([]*yaml.Node, len(n.Content))
	for i, child := range n.Content {
		c.Content[i] = copyOf(child)
	}
	return &c
}

// shape is a hash of what the trees mean and how they are built, comments and
// styles aside.
func (s *stream) shape() uint64 {
	var hash maphash.Hash
	hash.SetSeed(seed)
	for _, d := range s.documents {
		addShape(&hash, d)
	}
	return hash.Sum64()
}

func addShape(hash *maphash.Hash, n *yaml.Node) {
	tag, value := "", ""
	switch n.Kind {
	case yaml.AliasNode:
		value = resolve(n).Anchor
	case yaml.ScalarNode:
		if tag = n.ShortTag(); tag != "!!null" { // which has several spellings
			value = n.Value
		}
	}
	maphash.WriteComparable(hash, [2]int{int(n.Kind), len(n.Content)})
	for _, text := range [...]string{n.Anchor, tag, value} {
		maphash.WriteComparable(hash, text)
	}
	for _, child := range n.Content {
		addShape(hash, child)
	}
}

// walk calls visit for n and everything in it, aliases not followed.
func walk(n *yaml.Node, visit func(*yaml.Node)) {
	visit(n)
	for _, child := range n.Content {
		walk(child, visit)
	}
}

func (s *stream) walk(visit func(*yaml.Node)) {
	for _, d := range s.documents {
		walk(d, visit)
	}
}
