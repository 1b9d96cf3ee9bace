// Package promconfig puts the block (remote_write with sigv4) into a Prometheus
// configuration, and takes it out again.
//
// It edits the YAML tree: text appended to a configuration is silently ignored
// after a flow-style root, "..." or a second document, and fatal beside a
// remote_write that is already there. The edited tree says what the result has
// to mean. Where the block's text put into the user's own text means exactly
// that, the result is the user's text, to the byte, with the block in it.
// Otherwise the tree is written out, which keeps order, comments and style as
// far as the YAML library does. Every result is parsed again and compared with
// the tree before it is handed out.
//
// The package is pure: bytes in, bytes out. Whoever calls it serves the user's
// own bytes where it returns an error, because a configuration that is broken
// is Prometheus's to report.
package promconfig

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/ampbridge/ampbridge/policy"
)

// Result is a configuration with the blocks in it.
type Result struct {
	// Config is the new text; with no block to put in, the old one to the byte.
	Config []byte
	// Skipped are the blocks that were left out.
	Skipped []Skipped
}

// Skipped is a block that was left out, and why.
type Skipped struct {
	Name   string
	Reason string
}

// key is the field of Prometheus's configuration that is edited.
const key = "remote_write"

// word is what a name or a generation may look like, so that the header can be
// read back.
var word = regexp.MustCompile(`^[\w.:+-]+$`)

// Render appends blocks to remote_write of the first document, which is the
// only one that Prometheus reads. A block whose workspace the user writes to
// already is skipped: samples would be doubled otherwise. A block's name gets a
// suffix where the user has that name, since Prometheus refuses a second one.
//
// The generation goes into a comment on the first line. Prometheus's reloaders
// look at the text's hash, so a new generation makes them reload.
//
// It fails on text that is not YAML, a root that is not a mapping, and a
// remote_write that is not a list.
func Render(config []byte, blocks []policy.Block, generation string) (Result, error) {
	if len(blocks) == 0 {
		return Result{Config: config}, nil
	}
	if !word.MatchString(generation) {
		return Result{}, fmt.Errorf("generation %q: write letters, digits and . : + - _ only", generation)
	}
	var result Result
	err := inTurn([]manner{spliced, rewritten, bare}, func(m manner) (err error) {
		result, err = render(config, blocks, generation, m)
		return err
	})
	return result, err
}

func render(config []byte, blocks []policy.Block, generation string, m manner) (Result, error) {
	s, err := parse(config)
	if err != nil {
		return Result{}, err
	}
	list, was, err := s.remoteWrite()
	if err != nil {
		return Result{}, err
	}
	var result Result
	names, added := namesOf(list), []string{}
	for _, b := range blocks {
		if !word.MatchString(b.Name) {
			return Result{}, fmt.Errorf("remote_write name %q: write letters, digits and . : + - _ only", b.Name)
		}
		if entry, ok := writesTo(list, b.URL); ok {
			result.Skipped = append(result.Skipped, Skipped{b.Name, fmt.Sprintf("the configuration's own remote_write %s writes to this workspace already", entry)})
			continue
		}
		b.Name = unused(b.Name, names)
		names[b.Name] = true
		node := new(yaml.Node)
		if err := node.Encode(b); err != nil {
			return Result{}, fmt.Errorf("block %s: %w", b.Name, err)
		}
		added = append(added, b.Name)
		s.added = append(s.added, node)
	}
	if len(added) == 0 {
		result.Config = config
		return result, nil
	}
	opening := s.opening(list, was)
	if m == spliced && opening.until == 0 {
		return Result{}, errUneditable
	}
	s.insert(list, was)
	h := header{generation, added, was}
	result.Config, err = s.text(h.String(), m, opening)
	return result, err
}

// Remove takes out what [Render] put in. The result means what the original
// meant, and is its text where Render kept the user's text; styles that Render
// had to change stay changed. Text that Render did not make is returned as it
// is.
func Remove(config []byte) ([]byte, error) {
	h, rest, ok := cutHeader(config)
	if !ok {
		return config, nil
	}
	if h.was == nothing {
		return commentLines(rest), nil
	}
	var back []byte
	err := inTurn([]manner{spliced, rewritten, bare}, func(m manner) (err error) {
		back, err = remove(h, rest, m)
		return err
	})
	return back, err
}

func remove(h header, rest []byte, m manner) ([]byte, error) {
	s, err := parse(rest)
	if err != nil {
		return nil, err
	}
	list, _, err := s.remoteWrite()
	if err != nil {
		return nil, err
	}
	insertion := s.insertion(list, h)
	if m == spliced && insertion.until == 0 {
		return nil, errUneditable
	}
	s.withdraw(list, h)
	return s.text("", m, insertion)
}

// state is what stood in the place of the list before Render.
type state string

const (
	listed  state = "a list"
	null    state = "null"
	absent  state = "absent"
	merged  state = "merged"   // it came out of a merge key (<<)
	empty   state = "no field" // the document was null
	nothing state = "nowhere"  // there was no document, at most comments
)

// header is the comment by which Remove knows what Render did.
type header struct {
	generation string
	added      []string
	was        state
}

var headerLine = regexp.MustCompile(`^# ampbridge generation ([\w.:+-]+): added ([\w.:+, -]+); remote_write was (a list|null|absent|merged|no field|nowhere)\r?\n`)

func (h header) String() string {
	return fmt.Sprintf("# ampbridge generation %s: added %s; remote_write was %s", h.generation, strings.Join(h.added, ", "), h.was)
}

func cutHeader(config []byte) (h header, rest []byte, ok bool) {
	m := headerLine.FindSubmatch(config)
	if m == nil {
		return header{}, config, false
	}
	return header{string(m[1]), strings.Split(string(m[2]), ", "), state(m[3])}, config[len(m[0]):], true
}

// commentLines are the lines of text that hold one: all there was of a
// configuration without a document.
func commentLines(text []byte) []byte {
	var kept []byte
	for line := range bytes.Lines(text) {
		if bytes.HasPrefix(bytes.TrimLeft(line, " \t"), []byte("#")) || len(bytes.TrimSpace(line)) == 0 {
			kept = append(kept, line...)
		}
	}
	return kept
}

func namesOf(list *yaml.Node) map[string]bool {
	names := map[string]bool{}
	for _, entry := range items(list) {
		if name := lookup(entry, "name"); name != nil {
			names[name.Value] = true
		}
	}
	return names
}

func unused(name string, names map[string]bool) string {
	candidate := name
	for n := 2; names[candidate]; n++ {
		candidate = name + "-" + strconv.Itoa(n)
	}
	return candidate
}

// writesTo finds the entry of list that writes to the workspace of target, and
// says which it is.
func writesTo(list *yaml.Node, target string) (entry string, ok bool) {
	for i, item := range items(list) {
		address := lookup(item, "url")
		if address == nil || !sameWorkspace(address.Value, target) {
			continue
		}
		if name := lookup(item, "name"); name != nil && name.Value != "" {
			return strconv.Quote(name.Value), true
		}
		return fmt.Sprintf("number %d", i+1), true
	}
	return "", false
}

// sameWorkspace compares paths, not hosts: a workspace is reached through its
// regional name, FIPS and VPC endpoints and signing proxies alike, and its id is
// unique. Without a workspace in the path the whole address counts.
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
