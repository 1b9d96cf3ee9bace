// Package output writes reports for other programs, in the same forms for all commands.
package output

import (
	"encoding/json"
	"fmt"
	"io"

	"sigs.k8s.io/yaml"
)

// The formats of a report.
const (
	Text = "text"
	JSON = "json"
	YAML = "yaml"
)

// Write writes a report as JSON or YAML. Both have the same fields.
func Write(w io.Writer, format string, report any) error {
	if format != JSON && format != YAML {
		return fmt.Errorf("no format for other programs: %q", format)
	}
	text, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		return err
	}
	return WriteJSON(w, format, append(text, '\n'))
}

// WriteJSON is [Write] for a report that is JSON already.
func WriteJSON(w io.Writer, format string, text []byte) (err error) {
	if format == YAML {
		if text, err = yaml.JSONToYAML(text); err != nil {
			return err
		}
	}
	_, err = w.Write(text)
	return err
}
