package image

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/tools"
)

// An ignoreRule is one line of .dockerignore: it takes files out of the build
// context, or puts them back.
type ignoreRule struct {
	back    bool
	pattern *regexp.Regexp
}

// parseIgnore reads .dockerignore
// (https://docs.docker.com/build/concepts/context/#dockerignore-files). It
// refuses what it does not know: a leading slash, [a-z], \ and a space.
func parseIgnore(text string) (rules []ignoreRule, err error) {
	for number, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		pattern, back := strings.CutPrefix(line, "!")
		if path.Clean(pattern) != pattern || strings.HasPrefix(pattern, "/") || strings.ContainsAny(pattern, `[]\ `) {
			return nil, fmt.Errorf(".dockerignore:%d: this test cannot read %q", number+1, line)
		}
		var b strings.Builder
		for rest := pattern; rest != ""; {
			switch {
			case strings.HasPrefix(rest, "**/"):
				b.WriteString("(.*/)?")
				rest = rest[3:]
			case strings.HasPrefix(rest, "**"):
				b.WriteString(".*")
				rest = rest[2:]
			case rest[0] == '*':
				b.WriteString("[^/]*")
				rest = rest[1:]
			case rest[0] == '?':
				b.WriteString("[^/]")
				rest = rest[1:]
			default:
				b.WriteString(regexp.QuoteMeta(rest[:1]))
				rest = rest[1:]
			}
		}
		// A pattern that matches a directory matches everything below it.
		compiled, err := regexp.Compile("^" + b.String() + "(/.*)?$")
		if err != nil {
			return nil, err
		}
		rules = append(rules, ignoreRule{back, compiled})
	}
	return rules, nil
}

// letsThrough reports whether a file is in the build context: the last rule that
// matches decides.
func letsThrough(rules []ignoreRule, file string) bool {
	in := true
	for _, r := range rules {
		if r.pattern.MatchString(file) {
			in = r.back
		}
	}
	return in
}

// buildContext returns the files that .dockerignore lets through, by their
// slashed paths. Git's own directory and bin are never listed: the first is
// ignored, and the second holds only what make image has built.
func buildContext(root, ignore string) (files []string, err error) {
	rules, err := parseIgnore(ignore)
	if err != nil {
		return nil, err
	}
	err = filepath.WalkDir(root, func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		if entry.IsDir() {
			if name == ".git" || name == "bin" {
				return fs.SkipDir
			}
			return nil
		}
		if letsThrough(rules, name) {
			files = append(files, name)
		}
		return nil
	})
	return files, err
}

// programs are what the Dockerfile's stage `build` compiles.
var programs = []string{"./cmd/ampbridge", "./cmd/config-sidecar"}

// compile copies the files to an empty directory and builds the two programs
// there, with the Dockerfile's flags.
func compile(ctx context.Context, root, dir string, files []string) error {
	for _, name := range files {
		content, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			return err
		}
		target := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(target, content, 0o600); err != nil {
			return err
		}
	}
	build := exec.CommandContext(
		ctx,
		"go",
		append([]string{"build", "-trimpath", "-buildvcs=false", "-o", filepath.Join(dir, "out") + "/"}, programs...)...)
	build.Dir = dir
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

// dockerignore returns the repository's folder and the text of its .dockerignore.
func dockerignore(t *testing.T) (root, text string) {
	t.Helper()
	root = tools.RootFor(t)
	return root, testkit.ReadFile(t, filepath.Join(root, ".dockerignore"))
}

// What .dockerignore lets through is enough for `docker build .`.
func TestBuildContext(t *testing.T) {
	root, ignore := dockerignore(t)
	files, err := buildContext(root, ignore)
	testkit.Must(t, err)
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") || strings.Contains("/"+name, "/testdata/") || strings.HasPrefix(name, "test/") {
			t.Errorf("%s goes to the builder, and the image is not built from it", name)
		}
	}
	dir := t.TempDir()
	if err := compile(t.Context(), root, dir, files); err != nil {
		t.Fatal("`docker build .` would fail: ", err)
	}
	for _, program := range programs {
		if _, err := os.Stat(filepath.Join(dir, "out", path.Base(program))); err != nil {
			t.Error(err)
		}
	}
}

// The test above fails where .dockerignore lacks something that the programs need:
// a package of its own, one that few import, the list of modules.
func TestBuildContextLacks(t *testing.T) {
	root, ignore := dockerignore(t)
	for _, c := range []struct{ line, says string }{
		{"!webhook\n", "github.com/ampbridge/ampbridge/webhook"},
		{"!policy\n", "github.com/ampbridge/ampbridge/policy"},
		{"!go.sum\n", "go.sum"},
	} {
		t.Run(strings.TrimSpace(c.line), func(t *testing.T) {
			less := strings.Replace(ignore, c.line, "", 1)
			if less == ignore {
				t.Fatalf(".dockerignore has no line %q", c.line)
			}
			files, err := buildContext(root, less)
			testkit.Must(t, err)
			if err := compile(t.Context(), root, t.TempDir(), files); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("without it the build says %v, want a word of %s", err, c.says)
			}
		})
	}
}

func TestIgnoreRules(t *testing.T) {
	for _, c := range []struct {
		ignore, file string
		in           bool
	}{
		{"", "a/b.go", true},
		{"*", "go.mod", false},
		{"*", "a/b.go", false},
		{"*\n!a", "a/b.go", true},
		{"*\n!a", "ab/b.go", false},
		{"*\n!a\n**/*_test.go", "a/b_test.go", false},
		{"*\n!a\n**/testdata", "a/testdata/x/y", false},
		{"**/testdata", "testdata/x", false},
		{"# !a\n*\n!a/b", "a/c.go", false},
		{"*\n!a/b", "a/b/c.go", true},
		{"*.go", "a/b.go", true},
		{"a?c", "abc", false},
	} {
		rules, err := parseIgnore(c.ignore)
		testkit.Must(t, err)
		if got := letsThrough(rules, c.file); got != c.in {
			t.Errorf("%q lets %s through: %v, want %v", c.ignore, c.file, got, c.in)
		}
	}
	for _, line := range []string{"/a", "a/", "[ab]", `a\b`, "a b", "./a"} {
		if _, err := parseIgnore(line); err == nil {
			t.Errorf("%q is read, though this test does not know what it means", line)
		}
	}
}
