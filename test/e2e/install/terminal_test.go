//go:build linux && e2e

package install

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/tools"
)

// A terminal is one shell of a user with a clone of the repository, the programs that the page requires, the
// cluster's kubeconfig, and credentials of the central account.
type terminal struct {
	dir string
	env []string
	// exported is a file with all variables that the commands have exported so far.
	exported string
}

func (e *environment) terminal() *terminal {
	e.Helper()
	bin, home := e.TempDir(), e.TempDir()
	for _, name := range []string{"helm", "kubectl"} {
		e.must(os.Symlink(tools.Path(e.T, name), filepath.Join(bin, name)))
	}
	env := append([]string{"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + home, "KUBECONFIG=" + e.Kubeconfig(), imageStore(e)},
		e.cloud.Account(central).AdminCredentials().Environ()...)
	// Modules and build results come from the machine, because there is no network here.
	for _, name := range []string{"GOMODCACHE", "GOCACHE"} {
		env = append(env, name+"="+strings.TrimSpace(testkit.Exec(e, "go", "env", name)))
	}
	return &terminal{dir: e.clone(), env: env, exported: filepath.Join(home, "exported")}
}

// imageStore returns the variable that makes buildah leave the machine's own store unchanged.
func imageStore(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	return "CONTAINERS_STORAGE_CONF=" + testkit.TempFile(t, "storage.conf",
		fmt.Sprintf("[storage]\ndriver = \"vfs\"\ngraphroot = %q\nrunroot = %q\n", dir+"/graph", dir+"/run"))
}

// clone copies the repository's files, including changed and new ones.
func (e *environment) clone() string {
	e.Helper()
	root, err := tools.Root(e.Context())
	e.must(err)
	files := testkit.Exec(e, "git", "-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	dir := e.TempDir()
	for file := range strings.SplitSeq(strings.Trim(files, "\x00"), "\x00") {
		content, err := os.ReadFile(filepath.Join(root, file))
		if errors.Is(err, os.ErrNotExist) {
			continue // deleted, but not committed yet
		}
		e.must(err)
		target := filepath.Join(dir, file)
		e.must(os.MkdirAll(filepath.Dir(target), 0o755))
		e.must(os.WriteFile(target, content, 0o644))
	}
	return dir
}

// run runs a block and answers yes to every question.
func (t *terminal) run(e *environment, block string) string {
	e.Helper()
	script := "if [ -e " + t.exported + " ]; then . " + t.exported + "; fi\n" + block + "\nexport -p > " + t.exported + "\n"
	command := exec.CommandContext(e.Context(), "bash", "-euo", "pipefail", "-c", script)
	command.Dir, command.Env, command.Stdin = t.dir, t.env, strings.NewReader("yes\n")
	out, err := command.CombinedOutput()
	if err != nil {
		e.Fatalf("%s\n%v\n%s", block, err, out)
	}
	return strings.TrimSpace(string(out))
}
