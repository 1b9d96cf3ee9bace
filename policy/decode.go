package policy

import (
	"bytes"
	"cmp"
	"encoding"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// FieldError is one mistake in a policy file.
type FieldError struct {
	// Path is the field, for example destinations[0].workspace; empty for the whole file.
	Path string `json:"field,omitempty"`
	// Line counts from 1; 0 if the field is not in the file.
	Line int `json:"line,omitempty"`
	// Problem is what is wrong and, after a colon, how to fix it.
	Problem string `json:"problem"`
}

func (e FieldError) Error() string {
	var b strings.Builder
	if e.Line > 0 {
		fmt.Fprintf(&b, "line %d: ", e.Line)
	}
	if e.Path != "" {
		b.WriteString(e.Path + ": ")
	}
	b.WriteString(e.Problem)
	return b.String()
}

// Errors holds all mistakes of a policy file, in the file's order.
type Errors []FieldError

func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, err := range e {
		lines[i] = err.Error()
	}
	return strings.Join(lines, "\n")
}

// Parse reads a policy file: one YAML document, decoded strictly. The error is
// an [Errors] with every unknown field, wrong type and broken rule at once. Parse
// refuses a placeholder for a new workspace: see [ParseDraft].
func Parse(data []byte) (*Policy, error) { return parse(data, false, false) }

// ParseValues parses as [Parse] does, and also reads a values file of the chart, which has the
// policy under its field policy.
func ParseValues(data []byte) (*Policy, error) { return parse(data, false, true) }

// ParseDraft parses as [Parse] does, but a workspace may be a [NewWorkspace]. Only bootstrap uses it.
func ParseDraft(data []byte) (*Policy, error) { return parse(data, true, false) }

func parse(data []byte, draft, values bool) (*Policy, error) {
	if len(data) > maxSize {
		return nil, Errors{
			{Problem: fmt.Sprintf("the file has %d bytes: a policy is kept in a ConfigMap, which holds at most %d", len(data), maxSize)},
		}
	}
	decoder := yaml.NewDecoder(strings.NewReader(string(data)))
	var root, second yaml.Node
	if err := decoder.Decode(&root); errors.Is(err, io.EOF) {
		return nil, Errors{{Problem: "the file is empty: write apiVersion: " + APIVersion + ", kind: " + Kind + " and the destinations"}}
	} else if err != nil {
		return nil, Errors{syntaxError(data, err)}
	}
	if err := decoder.Decode(&second); !errors.Is(err, io.EOF) {
		return nil, Errors{
			{Problem: "the file holds more than one YAML document: a policy is one; write each into a file of its own"},
		}
	}
	document, p := root.Content[0], &Policy{}
	if inner := chartPolicy(document); inner != nil && values {
		document, p.APIVersion, p.Kind = inner, APIVersion, Kind // the chart adds both
	} else if e := foreign(document, inner != nil); e != nil {
		return nil, Errors{*e}
	}
	d := decoding{lines: map[string]int{}}
	d.value(document, reflect.ValueOf(p).Elem(), "")
	p.setDefaults()
	// A field that could not be read is zero. An error of a rule about it would only repeat
	// the first error.
	broken := p.validate()
	if !draft {
		broken = append(broken, p.unmade()...)
	}
	for _, e := range broken {
		if !d.failedAt(e.Path) {
			e.Line = d.line(e.Path)
			d.errs = append(d.errs, e)
		}
	}
	if len(d.errs) > 0 {
		slices.SortStableFunc(d.errs, func(a, b FieldError) int {
			return cmp.Compare(uint(a.Line-1), uint(b.Line-1)) // put errors about missing fields last
		})
		return nil, d.errs
	}
	return p, nil
}

// syntaxError returns the error of a file that is not YAML, with its line.
func syntaxError(data []byte, err error) FieldError {
	if tab := indentingTab.FindIndex(data); tab != nil {
		line := 1 + bytes.Count(data[:tab[0]], []byte("\n"))
		return FieldError{Line: line, Problem: "not YAML: a tab indents this line: write spaces"}
	}
	e := FieldError{Problem: "not YAML: " + err.Error()}
	if at := yamlLine.FindStringSubmatch(err.Error()); at != nil {
		e.Line, _ = strconv.Atoi(at[1])
		e.Problem = "not YAML: " + at[2]
	}
	for problem, fix := range syntaxFixes {
		if strings.Contains(e.Problem, problem) {
			e.Problem += ": " + fix
		}
	}
	return e
}

// syntaxFixes are the usual causes of what the YAML library reports, by a part of its text. The
// library finds a mistake only where it cannot read on.
var syntaxFixes = map[string]string{
	"found unexpected end of stream": "the file ends inside quotes: close the quote, which can open many lines above",
	"mapping values are not allowed": "here or above, write a blank after each colon, and indent fields of one mapping alike",
	"did not find expected":          "here or above, close brackets and quotes, and indent fields of one mapping alike",
	"cannot start any token":         "put the value in quotes",
}

var (
	indentingTab = regexp.MustCompile(`(?m)^ *\t`)
	yamlLine     = regexp.MustCompile(`^yaml: line ([0-9]+): (.*)$`)
)

// chartPolicy returns the policy in a values file of the chart; nil: the document is none.
func chartPolicy(document *yaml.Node) *yaml.Node {
	if fieldOf(document, "kind") != nil || fieldOf(document, "destinations") != nil {
		return nil
	}
	inner := fieldOf(document, "policy")
	if inner != nil && inner.Kind == yaml.AliasNode {
		inner = inner.Alias
	}
	return inner
}

// foreign returns the one error about a document that is something else than a policy. Its fields
// would only give errors that follow from it.
func foreign(document *yaml.Node, values bool) *FieldError {
	if values {
		return &FieldError{Problem: "is a values file of the chart: take the policy out of it, with " +
			`yq '{"apiVersion": "` + APIVersion + `", "kind": "` + Kind + `"} + .policy' FILE`}
	}
	fix := "write a policy, with apiVersion: " + APIVersion + " and kind: " + Kind
	fields := reflect.TypeFor[Policy]()
	if !slices.ContainsFunc(slices.Collect(fields.Fields()), func(f reflect.StructField) bool {
		return fieldOf(document, f.Tag.Get("yaml")) != nil
	}) {
		return &FieldError{Problem: "has no field of a policy: " + fix}
	}
	version, kind := fieldOf(document, "apiVersion"), fieldOf(document, "kind")
	if kind == nil || kind.Value == Kind || version == nil || strings.HasPrefix(version.Value, "ampbridge.io/") {
		return nil
	}
	if kind.Value == "ConfigMap" {
		fix = `take the policy out of it, with yq '.data["policy.yaml"]' FILE`
	}
	return &FieldError{Line: kind.Line, Path: "kind", Problem: fmt.Sprintf("is %s: %s", kind.Value, fix)}
}

// fieldOf returns a field of a mapping; nil: there is none.
func fieldOf(n *yaml.Node, name string) *yaml.Node {
	for i := 0; n.Kind == yaml.MappingNode && i < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i+1]
		}
	}
	return nil
}

const (
	// maxSize is the largest size of a file in bytes.
	maxSize = 1 << 20
	// maxValues limits how many values the file's aliases can expand to.
	maxValues = 1 << 16
)

// decoding walks a YAML tree and fills a Go value from it. The YAML libraries stop at the first
// wrong type, or report lines without field names. An admin needs both, for every mistake.
type decoding struct {
	errs   Errors
	lines  map[string]int
	values int
}

func (d *decoding) fail(path string, n *yaml.Node, format string, args ...any) {
	d.errs = append(d.errs, FieldError{Path: path, Line: n.Line, Problem: fmt.Sprintf(format, args...)})
}

// failedAt reports whether path, one of its parents or one of its children could not be read.
func (d *decoding) failedAt(path string) bool {
	return slices.ContainsFunc(d.errs, func(e FieldError) bool {
		return within(e.Path, path) || within(path, e.Path)
	})
}

func within(path, outer string) bool {
	rest, found := strings.CutPrefix(path, outer)
	return found && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

// line returns the line of path, or of its nearest parent in the file.
func (d *decoding) line(path string) int {
	for path != "" {
		if n, found := d.lines[path]; found {
			return n
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return 0
}

var textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()

func (d *decoding) value(n *yaml.Node, v reflect.Value, path string) {
	if d.values++; d.values >= maxValues {
		if d.values == maxValues {
			d.fail(path, n, "is one value too many: with its aliases (*name) expanded the file holds more than %d; write fewer", maxValues)
		}
		return
	}
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	d.lines[path] = n.Line
	if n.Style&yaml.TaggedStyle != 0 {
		// Without this check, !!bool yes would be a boolean and !!null true would be null.
		d.fail(path, n, "has the YAML tag %s: remove the tag", n.Tag)
		return
	}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return
	}
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	if v.CanAddr() && v.Addr().Type().Implements(textUnmarshaler) {
		if d.scalar(n, path, "!!str", "a string") {
			if err := v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(n.Value)); err != nil {
				if v.Type() == reflect.TypeFor[ARN]() && !strings.Contains(n.Value, ":") {
					err = nameForARN(path, n.Value)
				}
				d.fail(path, n, "%s", err)
			}
		}
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.mapping(n, v, path)
	case reflect.Slice:
		d.sequence(n, v, path)
	case reflect.Map:
		d.table(n, v, path)
	case reflect.String:
		if d.scalar(n, path, "!!str", "a string") {
			v.SetString(n.Value)
		}
	case reflect.Bool:
		if d.scalar(n, path, "!!bool", "true or false") {
			v.SetBool(strings.EqualFold(n.Value, "true"))
		}
	case reflect.Int:
		if d.scalar(n, path, "!!int", "a whole number") {
			i, err := strconv.ParseInt(strings.ReplaceAll(n.Value, "_", ""), 0, 32)
			if err != nil {
				d.fail(path, n, "%s is not a whole number of at most 32 bits", n.Value)
			}
			v.SetInt(i)
		}
	default:
		panic("policy: no decoding for " + v.Type().String())
	}
}

// nameForARN returns the error for a name in place of the ARN of a role or a policy.
func nameForARN(path, name string) error {
	kind := "role"
	if strings.HasSuffix(path, "ermissionsBoundary") {
		kind = "policy"
	}
	resource := kind + "/" + strings.TrimPrefix(name, kind+"/")
	return fmt.Errorf("%q is a name: write its ARN, arn:aws:iam::<account>:%s", name, resource)
}

func (d *decoding) scalar(n *yaml.Node, path, tag, want string) bool {
	switch {
	case n.Kind != yaml.ScalarNode:
		d.fail(path, n, "must be %s, not %s", want, kindName(n))
	case n.ShortTag() == tag:
		return true
	case tag == "!!str":
		d.fail(path, n, "must be %s, which YAML does not take %s for: put it in quotes", want, n.Value)
	default:
		d.fail(path, n, "must be %s, not %q", want, n.Value)
	}
	return false
}

func (d *decoding) sequence(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.SequenceNode {
		d.fail(path, n, "must be a list, not %s: write [...] or lines that start with -", kindName(n))
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	for i, item := range n.Content {
		d.value(item, v.Index(i), fmt.Sprintf("%s[%d]", path, i))
	}
}

func (d *decoding) mapping(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.MappingNode {
		d.fail(path, n, "must be a mapping of fields, not %s", kindName(n))
		return
	}
	fields := map[string]int{}
	for i := range v.NumField() {
		fields[v.Type().Field(i).Tag.Get("yaml")] = i
	}
	seen := map[string]bool{}
	for i := 0; i < len(n.Content); i += 2 {
		key, item := n.Content[i], n.Content[i+1]
		at := key.Value
		if path != "" {
			at = path + "." + key.Value
		}
		field, known := fields[key.Value]
		switch {
		case !known:
			d.fail(at, key, "unknown field: %s", suggest(key.Value, fields))
		case seen[key.Value]:
			d.fail(at, key, "is set twice: keep one")
		default:
			d.value(item, v.Field(field), at)
		}
		seen[key.Value] = true
	}
}

// table decodes a mapping with keys that the user chooses.
func (d *decoding) table(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.MappingNode {
		d.fail(path, n, "must be a mapping of names to strings, not %s", kindName(n))
		return
	}
	v.Set(reflect.MakeMap(v.Type()))
	for i := 0; i < len(n.Content); i += 2 {
		key, at := n.Content[i], path+"."+n.Content[i].Value
		name := reflect.ValueOf(key.Value)
		if v.MapIndex(name).IsValid() {
			d.fail(at, key, "is set twice: keep one")
			continue
		}
		item := reflect.New(v.Type().Elem()).Elem()
		d.value(n.Content[i+1], item, at)
		v.SetMapIndex(name, item)
	}
}

func kindName(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	return fmt.Sprintf("%q", n.Value)
}

// suggest returns the field that was probably meant, or a list of all fields.
func suggest(got string, fields map[string]int) string {
	names := make([]string, len(fields))
	for name, i := range fields {
		if strings.EqualFold(name, got) || strings.EqualFold(strings.ReplaceAll(got, "_", ""), name) ||
			distance(strings.ToLower(name), strings.ToLower(got)) <= 2 {
			return "did you mean " + name + "?"
		}
		names[i] = name
	}
	return "the fields here are " + strings.Join(names, ", ")
}

// distance returns the Levenshtein distance in bytes. A * in a matches any bytes, as in a [Glob].
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		if a[i] == '*' {
			for j := range len(b) {
				row[j+1] = min(row[j+1], row[j])
			}
			continue
		}
		previous := row[0]
		row[0]++
		for j := range len(b) {
			cost := previous
			if a[i] != b[j] {
				cost++
			}
			previous = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
