package preview

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	evanphx "github.com/evanphx/json-patch/v5"
	"gomodules.xyz/jsonpatch/v2"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/ampbridge/ampbridge/policy/policyfile"
	"github.com/ampbridge/ampbridge/webhook/inject"
)

// document is one YAML document or one JSON text.
type document struct {
	// original is the text as it was read. It is printed if nothing changed, so that the
	// author's comments and order stay.
	original []byte
	json     []byte
	// operations lists all applied operations.
	operations []jsonpatch.Operation
}

func readDocuments(path string, stdin io.Reader) ([]document, error) {
	data, err := policyfile.Read(path, stdin)
	if err != nil {
		return nil, err
	}
	documents, err := parseDocuments(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return documents, nil
}

func parseDocuments(data []byte) ([]document, error) {
	var documents []document
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	for {
		text, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return documents, nil
		}
		if err != nil {
			return nil, err
		}
		converted, err := yaml.YAMLToJSON(text)
		if err != nil {
			return nil, err
		}
		if string(converted) != "null" {
			documents = append(documents, document{original: text, json: converted})
		}
	}
}

// object has the fields of an object that are read before its kind is known.
type object struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Items      []json.RawMessage `json:"items"`
}

// is reports whether the object has one of the kinds of a version.
func (o object) is(version string, kinds ...string) bool {
	return o.APIVersion == version && slices.Contains(kinds, o.Kind)
}

// changer returns the operations that change an object.
type changer func(text []byte, header object) ([]jsonpatch.Operation, error)

// each calls change for the object in d, or for each item if d is a list, and
// applies the operations that it returns.
func (d *document) each(change changer) error {
	var o object
	if err := json.Unmarshal(d.json, &o); err != nil {
		return fmt.Errorf("not a Kubernetes object: %w", err)
	}
	if o.Kind != "List" {
		changed, err := d.apply(d.json, o, change)
		d.json = changed
		return err
	}
	for i, item := range o.Items {
		var header object
		if err := json.Unmarshal(item, &header); err != nil {
			return fmt.Errorf("items[%d]: not a Kubernetes object: %w", i, err)
		}
		changed, err := d.apply(item, header, change)
		if err != nil {
			return fmt.Errorf("items[%d]: %w", i, err)
		}
		replaced, err := applyPatch(
			d.json,
			[]jsonpatch.Operation{{Operation: "replace", Path: fmt.Sprintf("/items/%d", i), Value: json.RawMessage(changed)}},
		)
		if err != nil {
			return err
		}
		d.json = replaced
	}
	return nil
}

func (d *document) apply(text []byte, header object, change changer) ([]byte, error) {
	operations, err := change(text, header)
	if err != nil || len(operations) == 0 {
		return text, err
	}
	d.operations = append(d.operations, operations...)
	return applyPatch(text, operations)
}

func applyPatch(text []byte, operations []jsonpatch.Operation) ([]byte, error) {
	encoded, err := inject.AppendPatch(nil, operations)
	if err != nil {
		return nil, err
	}
	patch, err := evanphx.DecodePatch(encoded)
	if err != nil {
		return nil, err
	}
	options := evanphx.NewApplyOptions()
	options.EscapeHTML = false
	return patch.ApplyWithOptions(text, options)
}

func writeDocuments(w io.Writer, documents []document, format string) error {
	for i := range documents {
		text, err := documents[i].text(format)
		if err != nil {
			return err
		}
		if i > 0 && format == YAML {
			text = append([]byte("---\n"), text...)
		}
		if _, err := w.Write(text); err != nil {
			return err
		}
	}
	return nil
}

func (d *document) text(format string) ([]byte, error) {
	switch format {
	case Patch:
		if d.operations == nil {
			return []byte("[]\n"), nil
		}
		patch, err := inject.AppendPatch(nil, d.operations)
		if err != nil {
			return nil, err
		}
		return encodeIndented(json.RawMessage(patch))
	case JSON:
		// Decode and encode again, so that members always have the same order. Numbers keep
		// their spelling.
		decoder := json.NewDecoder(bytes.NewReader(d.json))
		decoder.UseNumber()
		var v any
		if err := decoder.Decode(&v); err != nil {
			return nil, err
		}
		return encodeIndented(v)
	}
	if len(d.operations) == 0 && !utilyaml.IsJSONBuffer(d.original) {
		return append(bytes.TrimRight(d.original, "\n"), '\n'), nil
	}
	return yaml.JSONToYAML(d.json)
}

func encodeIndented(v any) ([]byte, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	err := encoder.Encode(v)
	return b.Bytes(), err
}
