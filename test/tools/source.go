package tools

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
)

// Source returns the directory with the source of a Go module from which a tool is built.
// The tool is named as the directory of its module, beside this file.
func Source(ctx context.Context, tool, module string) (string, error) {
	root, err := Root(ctx)
	if err != nil {
		return "", err
	}
	download := exec.CommandContext(ctx, "go", "mod", "download", "-json", module)
	download.Dir = filepath.Join(root, "test", "tools", tool)
	out, err := download.Output()
	if err != nil {
		return "", fmt.Errorf("tools: go mod download %s: %w", module, err)
	}
	var answer struct{ Dir string }
	if err := json.Unmarshal(out, &answer); err != nil {
		return "", fmt.Errorf("tools: go mod download %s: %w", module, err)
	}
	return answer.Dir, nil
}
