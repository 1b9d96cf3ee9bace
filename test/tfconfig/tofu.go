package tfconfig

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/ampbridge/ampbridge/test/tools"
)

// Check has OpenTofu itself look at a configuration: that it is formatted as
// `tofu fmt` formats, and that it loads as a root module. Whether its arguments
// exist is known to the aws provider alone, which is not at hand.
func Check(tb testing.TB, text []byte) {
	tb.Helper()
	tofu, dir := tools.Path(tb, "tofu"), tb.TempDir()
	settings := filepath.Join(dir, "tofu.rc")
	for name, content := range map[string][]byte{"main.tf": text, "tofu.rc": nil} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	for _, args := range [][]string{{"fmt", "-check", "-diff"}, {"providers"}} {
		cmd := exec.CommandContext(tb.Context(), tofu, args...)
		cmd.Dir = dir
		// Neither the machine's settings nor a call home.
		cmd.Env = []string{"HOME=" + dir, "TF_CLI_CONFIG_FILE=" + settings, "CHECKPOINT_DISABLE=1"}
		if out, err := cmd.CombinedOutput(); err != nil {
			tb.Errorf("tofu %s: %v\n%s", args[0], err, out)
		}
	}
}
