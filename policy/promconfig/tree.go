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

// stream is a configuration as YAML trees.
type stream struct {
	source    []byte
	documents []*yaml.Node
	// opaque is true if package v4 cannot read the source, so that there are no trees.
	opaque bool
	// added are the trees of the blocks.
	added []*yaml.Node
	// memory is the memory limit in bytes; 0 means no limit.
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

// root returns the first document's content; nil without a document.
func (s *stream) root() *yaml.Node {
	if len(s.documents) == 0 || len(s.documents[0].Content) == 0 {
		return nil
	}
	return s.documents[0].Content[0]
}

// remoteWrite finds the list as Prometheus does; nil if there is none.
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
				"configuration: line %d: a merge key (<<) after %s replaces it: write the merge key first",
				root.Content[at[0]].Line,
				key,
			)
		}
	default:
		return nil, "", fmt.Errorf("configuration: line %d: %s is set twice", root.Content[at[1]].Line, key)
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

// insert puts the added blocks at the end of list. was is the state before.
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
		// Other mappings merge the list too, so the field gets a copy.
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
	// In a flow collection with block entries, comments would be written to places where they
	// hide what follows.
	s.root().Style &^= yaml.FlowStyle
	target.Content = append(target.Content, s.added...)
}

// withdraw reverts insert.
func (s *stream) withdraw(list *yaml.Node, h header) {
	if list == nil {
		return
	}
	// The blocks are at the end. They may have no names, so their number counts.
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

// resolve returns the target of an alias. In YAML an alias never refers to an alias.
func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode && n.Alias != nil {
		return n.Alias
	}
	return n
}

// fields returns the indexes in mapping.Content of the values of remote_write.
func fields(mapping *yaml.Node) (at []int) {
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if k := resolve(mapping.Content[i]); k.Kind == yaml.ScalarNode && k.Value == key {
			at = append(at, i+1)
		}
	}
	return at
}

// lookup finds the value of a mapping's field, also in its merge keys, as Prometheus's YAML
// library does. The last one in the text counts, whether it is the mapping's own or from a merge
// key. If one key merges several mappings, the first of them counts.
func lookup(n *yaml.Node, name string) *yaml.Node {
	return finder{name, map[*yaml.Node]*yaml.Node{}}.find(n)
}

// finder looks up a field. It visits each mapping once, however often it is
// merged: mappings that merge each other can have an enormous number of paths, and even cycles.
type finder struct {
	name string
	// found maps each visited mapping to its field; nil if it has none, or
	// if the mapping is still being visited.
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

// detach replaces the aliases of n by a copy of its current content, so that a change of n
// does not change them.
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

// copyOf returns a deep copy without anchors, because an anchor may be defined only once.
// Aliases in the copy keep their targets.
func copyOf(n *yaml.Node) *yaml.Node {
	c := *n
	c.Anchor = ""
	c.Content = make([]*yaml.Node, len(n.Content))
	for i, child := range n.Content {
		c.Content[i] = copyOf(child)
	}
	return &c
}

// shape returns a hash of the trees' meaning and structure, without comments and styles.
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
		if tag = n.ShortTag(); tag != "!!null" { // null has several spellings
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

// walk calls visit for n and everything in it. It does not follow aliases.
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
