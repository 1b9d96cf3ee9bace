package docs

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ampbridge/ampbridge/cmd/internal/cli"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// The test program is ampbridge too, so that commands of the pages need no build.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "ampbridge" {
		os.Exit(cli.Main(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// A shell block with the mark "runnable" runs in a directory that has docs/examples, with
// ampbridge on its PATH, no cluster and no AWS. It succeeds, or fails if it has the mark
// "fails" too. A block "output" right after it is what the commands print.
func TestRunnableBlocks(t *testing.T) {
	bin := t.TempDir()
	program, err := os.Executable()
	testkit.Must(t, err)
	testkit.Must(t, os.Symlink(program, filepath.Join(bin, "ampbridge")))
	count := 0
	for _, page := range pages(t) {
		all := blocks(t, page)
		if !slices.ContainsFunc(all, block.runnable) {
			continue
		}
		t.Run(page, func(t *testing.T) {
			dir := t.TempDir()
			testkit.Must(t, os.CopyFS(filepath.Join(dir, "docs/examples"), os.DirFS(filepath.Join(root, "docs/examples"))))
			text := read(t, page)
			for i, b := range all {
				if !b.runnable() {
					continue
				}
				count++
				output := run(t, dir, bin, b)
				if i+1 == len(all) || all[i+1].info != "output" {
					continue
				}
				written := "```" + b.info + "\n" + b.text + "```\n\n```output\n"
				before, after, found := strings.Cut(text, written)
				if !found {
					t.Fatalf("%s:%d: the output stands apart from its commands", page, b.number)
				}
				text = before + written + output + strings.TrimPrefix(after, all[i+1].text)
			}
			testkit.Golden(t, filepath.Join(root, page), text)
		})
	}
	if count < 14 {
		t.Errorf("%d runnable blocks", count)
	}
}

func (b block) runnable() bool { return strings.HasPrefix(b.info, "sh runnable") }

func run(t *testing.T, dir, bin string, b block) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", b.text)
	command.Dir = dir
	command.Env = []string{
		"PATH=" + bin + string(os.PathListSeparator) + os.Getenv("PATH"), "HOME=" + dir,
		"KUBECONFIG=" + filepath.Join(dir, "none"), "AWS_EC2_METADATA_DISABLED=true", "LC_ALL=C.UTF-8", "NO_COLOR=1",
	}
	output, err := command.CombinedOutput()
	if fails := strings.HasSuffix(b.info, " fails"); (err != nil) != fails {
		t.Errorf("%s:%d: %v\n%s", b.page, b.number, err, output)
	}
	return string(output)
}

var (
	inline = regexp.MustCompile("`((?:bin/)?ampbridge [a-z][^`]*)`")
	shell  = regexp.MustCompile(`^(?:bin/)?ampbridge [a-z]`)
	ends   = []string{"|", ">", "<", ">>", "&&", "||", ";", "#", "2>", "…"}
)

// Every command of ampbridge that a page shows exists, with its flags.
func TestCommandsExist(t *testing.T) {
	count := 0
	for _, page := range pages(t) {
		if page == "CHANGELOG.md" || page == "docs/design/architecture.md" || page == "docs/design/performance.md" {
			continue
		}
		for _, l := range lines(read(t, page)) {
			var shown []string
			text := strings.TrimPrefix(strings.TrimSpace(l.text), "$ ")
			switch {
			case l.code && shell.MatchString(text) && !strings.HasPrefix(l.fence, "text"):
				shown = append(shown, continued(t, page, l.number))
			case !l.code:
				for _, found := range inline.FindAllStringSubmatch(l.text, -1) {
					shown = append(shown, found[1])
				}
			}
			for _, command := range shown {
				count++
				if wrong := unknown(command); wrong != "" {
					t.Errorf("%s:%d: %s: %s", page, l.number, command, wrong)
				}
			}
		}
	}
	if count < 50 {
		t.Errorf("only %d commands", count)
	}
}

// continued returns a line, with the lines that a backslash adds to it.
func continued(t *testing.T, page string, number int) string {
	t.Helper()
	all := strings.Split(read(t, page), "\n")
	command := strings.TrimPrefix(strings.TrimSpace(all[number-1]), "$ ")
	for ; strings.HasSuffix(command, `\`) && number < len(all); number++ {
		command = strings.TrimSuffix(command, `\`) + strings.TrimSpace(all[number])
	}
	return command
}

// unknown returns what of a command line does not exist.
func unknown(command string) string {
	words := strings.Fields(command)[1:]
	for i, word := range words {
		if slices.Contains(ends, word) || strings.HasPrefix(word, "#") {
			words = words[:i]
			break
		}
	}
	tree := cli.New()
	tree.InitDefaultHelpCmd()
	tree.InitDefaultCompletionCmd()
	named := words
	if i := slices.IndexFunc(words, func(w string) bool { return strings.HasPrefix(w, "-") }); i >= 0 {
		named = words[:i]
	}
	c, _, err := tree.Find(named)
	if err != nil {
		return err.Error()
	}
	if c == tree {
		return "there is no such command"
	}
	c.InitDefaultHelpFlag()
	for _, word := range words {
		name, _, _ := strings.Cut(strings.TrimRight(word, ",;:.)]"), "=")
		switch long, isLong := strings.CutPrefix(name, "--"); {
		case isLong && long != "" && c.Flags().Lookup(long) == nil && c.InheritedFlags().Lookup(long) == nil:
			return "there is no flag " + name
		case !isLong && len(name) == 2 && name[0] == '-' && name != "--" &&
			c.Flags().ShorthandLookup(name[1:]) == nil && c.InheritedFlags().ShorthandLookup(name[1:]) == nil:
			return "there is no flag " + name
		}
	}
	return ""
}

func TestUnknown(t *testing.T) {
	for command, wrong := range map[string]bool{
		"ampbridge doctor --wait 5m":                  false,
		"ampbridge doctor -o html > doctor.html":      false,
		"ampbridge doctr":                             true,
		"ampbridge doctor --weight 5m":                true,
		"ampbridge bootstrap policy --from x --dir d": false,
		"ampbridge validate policy.yaml -q":           true,
		"ampbridge try | grep --color x":              false,
	} {
		if got := unknown(command); (got != "") != wrong {
			t.Errorf("%s: %q", command, got)
		}
	}
}
