// Package policyfile loads and watches the policy file. It is the one package under
// policy that does I/O, because both the webhook and the commands use it.
//
// [Load] reads a policy once, from a file or from standard input. [Watch] follows a
// file while a process runs.
package policyfile

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/ampbridge/ampbridge/policy"
)

// Stdin is the file name that means standard input.
const Stdin = "-"

// Read reads the file, or stdin for "-".
func Read(path string, stdin io.Reader) ([]byte, error) {
	if path != Stdin {
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			return nil, fmt.Errorf("%s is a directory: name a file in it", path)
		}
		return os.ReadFile(path)
	}
	data, err := io.ReadAll(stdin)
	if err != nil {
		return nil, fmt.Errorf("standard input: %w", err)
	}
	return data, nil
}

// Load reads a policy, or the policy in a values file of the chart. The error has one line per
// mistake, each with the file's name.
func Load(path string, stdin io.Reader) (*policy.Policy, error) {
	data, err := Read(path, stdin)
	if err != nil {
		return nil, err
	}
	return parse(path, data, policy.ParseValues)
}

// Parse parses the text of a policy. The error is as that of [Load].
func Parse(path string, data []byte) (*policy.Policy, error) { return parse(path, data, policy.Parse) }

// ParseDraft parses as [Parse] does, but allows placeholders for new workspaces. Only bootstrap
// uses it.
func ParseDraft(path string, data []byte) (*policy.Policy, error) {
	return parse(path, data, policy.ParseDraft)
}

func parse(path string, data []byte, parse func([]byte) (*policy.Policy, error)) (*policy.Policy, error) {
	p, err := parse(data)
	var mistakes policy.Errors
	if !errors.As(err, &mistakes) {
		return p, err
	}
	lines := make([]error, len(mistakes))
	for i, m := range mistakes {
		lines[i] = fmt.Errorf("%s: %w", name(path), m)
	}
	return nil, errors.Join(lines...)
}

func name(path string) string {
	if path == Stdin {
		return "standard input"
	}
	return path
}
