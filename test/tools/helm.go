package tools

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Helm runs Helm 3 without any of the user's settings, and returns its standard output.
// It ends the test if Helm fails.
func Helm(tb testing.TB, args ...string) string {
	tb.Helper()
	home := tb.TempDir()
	cmd := exec.CommandContext(tb.Context(), Path(tb, "helm"), args...)
	cmd.Env = append(os.Environ(), "HELM_CACHE_HOME="+home, "HELM_CONFIG_HOME="+home, "HELM_DATA_HOME="+home)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		tb.Fatalf("helm %s: %v\n%s%s", strings.Join(args, " "), err, &stdout, &stderr)
	}
	return stdout.String()
}
