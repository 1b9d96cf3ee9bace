// Package promconfig puts remote_write blocks into a Prometheus
// configuration, and removes them.
//
// It is not enough to append text. Prometheus silently ignores text after a
// flow-style root, "..." or a second document, and refuses a second remote_write.
// So the package tries three ways in this order, the best first:
//
//  1. the user's text, with the blocks' text put in;
//  2. the YAML tree, written out with its comments;
//  3. the YAML tree without comments.
//
// Two parsers check each result. YAML package v4, which edits the tree, must
// read the intended tree. YAML package v2, which Prometheus itself uses,
// must read the same as in the user's configuration, plus the blocks at the
// end of remote_write. Package v2 decides: a text that only v2 can read still
// gets the blocks, in the first way.
//
// The package is pure: bytes in, bytes out. If it returns an error, the
// caller serves the user's own bytes, and Prometheus reports a broken configuration itself.
package promconfig

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/ampbridge/ampbridge/policy"
)

// Result is a configuration with the blocks in it.
type Result struct {
	// Config is the new text. Without any block to put in, it is the old text, byte for byte.
	Config []byte
	// Skipped are the blocks that were not put in.
	Skipped []Skipped
}

// Skipped is a block that was not put in, with the reason.
type Skipped struct {
	Name   string
	Reason string
}

// key is the edited field of Prometheus's configuration.
const key = "remote_write"

// word is the syntax of a name or generation that Remove can read back from the header.
var word = regexp.MustCompile(`^[\w.:+-]+$`)

// Render appends blocks to remote_write of the first document, which is the
// only one that Prometheus reads. It skips a block if the user already writes to the same
// workspace, because all samples would be sent twice. A block's name gets a
// suffix if the user has an entry with that name, because Prometheus refuses equal names.
//
// The generation goes into a comment on the first line. Prometheus's reloaders
// compare the text's hash, so a new generation makes them reload.
//
// Render fails if the text is not YAML, the root is not a mapping, or
// remote_write is not a list.
func Render(config []byte, blocks []policy.Block, generation string) (Result, error) {
	return RenderWithin(0, config, blocks, generation)
}

// RenderWithin is Render with a limit: it may use that many bytes of memory; 0 means no
// limit. It fails with a [*TooLargeError] before it exceeds the limit.
func RenderWithin(memory int64, config []byte, blocks []policy.Block, generation string) (Result, error) {
	return renderBy([]strategy{splice, rewrite, bare}, memory, config, blocks, generation)
}

func renderBy(strategies []strategy, memory int64, config []byte, blocks []policy.Block, generation string) (Result, error) {
	if len(blocks) == 0 {
		return Result{Config: config}, nil
	}
	if !word.MatchString(generation) {
		return Result{}, fmt.Errorf("generation %q: write letters, digits and . : + - _ only", generation)
	}
	if err := enough(config, splice, 0, memory); err != nil {
		return Result{}, err
	}
	before, err := read(config)
	if err != nil {
		return Result{}, unreadable(config, err)
	}
	var result Result
	e := edit{header: header{generation: generation}, memory: memory}
	names := before.namesOf()
	for _, b := range blocks {
		id := cmp.Or(b.Name, b.ID)
		if !word.MatchString(id) {
			return Result{}, fmt.Errorf("remote_write name %q: write letters, digits and . : + - _ only", id)
		}
		if entry, ok := writesTo(before.writes, b.URL); ok {
			result.Skipped = append(
				result.Skipped,
				Skipped{id, fmt.Sprintf("the configuration's own remote_write %s writes to this workspace already: "+
					"remove that entry, and ampbridge writes there", entry)},
			)
			continue
		}
		id = unused(id, names)
		names[id] = true
		if b.Name != "" {
			b.Name = id
		}
		block, err := meaningOf(b)
		if err != nil {
			return Result{}, fmt.Errorf("block %s: %w", b.URL, err)
		}
		e.header.added = append(e.header.added, id)
		e.blocks, e.meanings = append(e.blocks, b), append(e.meanings, block)
	}
	if len(e.blocks) == 0 {
		result.Config = config
		return result, nil
	}
	result.Config, err = inTurn(strategies, func(m strategy) ([]byte, error) {
		if err := enough(config, m, 0, memory); err != nil {
			return nil, err
		}
		collect(config)
		out, err := e.apply(config, before, m)
		if err != nil {
			return nil, err
		}
		collect(config)
		if after, err := read(out); err != nil || !before.with(e.meanings, after) {
			return nil, errUneditable
		}
		return out, nil
	})
	return result, err
}

// unreadable returns why Prometheus's parser cannot read a configuration. It prefers the
// message of the other parser, if that fails too, because it is clearer.
func unreadable(config []byte, err error) error {
	s, err4 := parse(config)
	if err4 == nil {
		_, _, err4 = s.remoteWrite()
	}
	if err4 != nil {
		return err4
	}
	return fmt.Errorf("configuration: Prometheus's own YAML parser cannot read it: %w", err)
}

// edit holds the values to put into a configuration.
type edit struct {
	header   header
	blocks   []policy.Block
	meanings []any // the meanings of the blocks
	memory   int64 // in bytes; 0 means no limit
}

// apply puts the blocks into the configuration with one strategy.
func (e edit) apply(config []byte, before meaning, m strategy) ([]byte, error) {
	s, err := parse(config)
	if err != nil && m != splice {
		return nil, fmt.Errorf("%w: %w", errUneditable, err)
	}
	if err != nil {
		s = &stream{source: config, opaque: true}
	}
	s.memory = e.memory
	for _, b := range e.blocks {
		node := new(yaml.Node)
		if err := node.Encode(b); err != nil {
			return nil, fmt.Errorf("block %s: %w", b.URL, err)
		}
		s.added = append(s.added, node)
	}
	if !s.opaque {
		list, was, err := s.remoteWrite()
		if err != nil {
			return nil, err
		}
		e.header.was = was
		s.insert(list, was)
	} else if e.header.was = absent; before.field {
		e.header.was = listed
	}
	if m != splice {
		return s.text(e.header.String(), m)
	}
	p, ok := locate(config)
	if !ok || p.field == before.field {
		return nil, errUneditable
	}
	return s.splice(e.header, p)
}

// Remove removes what [Render] put in. The result has the original's meaning. It also has the
// original's text if Render kept that; styles that Render had to change stay changed. A text that
// Render did not write is returned unchanged.
func Remove(config []byte) ([]byte, error) {
	h, rest, ok := cutHeader(config)
	if !ok {
		return config, nil
	}
	before, err := read(rest)
	if err == nil {
		before, err = before.without(len(h.added))
	}
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	return inTurn([]strategy{splice, rewrite, bare}, func(m strategy) ([]byte, error) {
		back, err := remove(h, rest, m)
		if err != nil {
			return nil, err
		}
		if after, err := read(back); err != nil || !before.with(nil, after) {
			return nil, errUneditable
		}
		return back, nil
	})
}

func remove(h header, rest []byte, m strategy) ([]byte, error) {
	if m == splice {
		return h.undo(rest)
	}
	s, err := parse(rest)
	if err != nil {
		return nil, err
	}
	list, _, err := s.remoteWrite()
	if err != nil {
		return nil, err
	}
	s.withdraw(list, h)
	return s.text("", m)
}

// state is what was in the list's place before Render.
type state string

const (
	listed  state = "a list"
	null    state = "null"
	absent  state = "absent"
	merged  state = "merged"   // it came from a merge key (<<)
	empty   state = "no field" // the document was null
	nothing state = "nowhere"  // there was no document, or only comments
)

// header is the comment from which Remove learns what Render did.
type header struct {
	generation string
	added      []string
	was        state
	// In the user's text, length bytes at the offset at have replaced the text
	// cut. Zero if the whole tree was written.
	at, length int
	cut        string
}

var headerLine = regexp.MustCompile(`^# ampbridge generation ([\w.:+-]+): added ([\w.:+, -]+); ` +
	`remote_write was (a list|null|absent|merged|no field|nowhere)(?:; (\d+) bytes at (\d+)(?: for ("(?:[^"\\\n]|\\.)*"))?)?\r?\n`)

func (h header) String() string {
	text := fmt.Sprintf("# ampbridge generation %s: added %s; remote_write was %s", h.generation, strings.Join(h.added, ", "), h.was)
	if h.length > 0 {
		text += fmt.Sprintf("; %d bytes at %d", h.length, h.at)
	}
	if h.cut != "" {
		text += " for " + strings.ReplaceAll(strconv.QuoteToASCII(h.cut), "$", `\x24`) // the text must not gain an expansion
	}
	return text
}

func cutHeader(config []byte) (h header, rest []byte, ok bool) {
	m := headerLine.FindSubmatch(config)
	if m == nil {
		return header{}, config, false
	}
	h = header{generation: string(m[1]), added: strings.Split(string(m[2]), ", "), was: state(m[3])}
	if m[4] != nil {
		// A number that is too large gives an offset outside the text, which undo refuses.
		h.length, _ = strconv.Atoi(string(m[4]))
		h.at, _ = strconv.Atoi(string(m[5]))
		h.cut, _ = strconv.Unquote(string(m[6]))
	}
	return h, config[len(m[0]):], true
}

// undo removes the blocks' text from the user's text.
func (h header) undo(text []byte) ([]byte, error) {
	if h.length <= 0 || h.at < 0 || h.length > len(text)-h.at {
		return nil, errUneditable
	}
	return slices.Concat(text[:h.at], []byte(h.cut), text[h.at+h.length:]), nil
}

func unused(name string, names map[string]bool) string {
	candidate := name
	for n := 2; names[candidate]; n++ {
		candidate = name + "-" + strconv.Itoa(n)
	}
	return candidate
}

// writesTo finds the entry that writes to the workspace of target, and returns a
// description of it.
func writesTo(entries []any, target string) (entry string, ok bool) {
	for i, item := range entries {
		if !sameWorkspace(textOf(item, "url"), target) {
			continue
		}
		if name := textOf(item, "name"); name != "" {
			return strconv.Quote(name), true
		}
		return fmt.Sprintf("number %d", i+1), true
	}
	return "", false
}

// sameWorkspace compares paths and not hosts, because a workspace has a regional name, FIPS names,
// VPC endpoints and signing proxies, but only one id. If the path has no workspace, the whole
// address counts.
func sameWorkspace(a, b string) bool {
	x, err := url.Parse(a)
	y, err2 := url.Parse(b)
	if errors.Join(err, err2) != nil {
		return a == b
	}
	xPath, yPath := strings.TrimSuffix(x.Path, "/"), strings.TrimSuffix(y.Path, "/")
	if i := strings.Index(yPath, "/workspaces/"); i >= 0 {
		return strings.HasSuffix(xPath, yPath[i:])
	}
	return strings.EqualFold(x.Scheme+x.Host, y.Scheme+y.Host) && xPath == yPath
}
