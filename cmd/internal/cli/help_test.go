package cli

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	plain "github.com/ampbridge/ampbridge/test/words"
)

// each calls visit for a command and all below it.
func each(cmd *cobra.Command, visit func(*cobra.Command)) {
	visit(cmd)
	for _, c := range cmd.Commands() {
		each(c, visit)
	}
}

// hardWords are read twice in a help, besides those of test/words.
var hardWords = regexp.MustCompile(`(?i)\b(whose|in turn)\b`)

func TestHelp(t *testing.T) {
	each(New(), func(cmd *cobra.Command) {
		t.Run(cmd.CommandPath(), func(t *testing.T) {
			words := strings.Fields(cmd.CommandPath())[1:]
			status, help, stderr := run(t, "", append(words, "--help")...)
			if status != OK || stderr != "" {
				t.Fatalf("status %d, %q", status, stderr)
			}
			for line := range strings.Lines(help) {
				if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > helpWidth {
					t.Errorf("%d columns: %s", n, line)
				}
			}
			if found := append(plain.Find(help), hardWords.FindAllString(help, -1)...); len(found) > 0 {
				t.Errorf("words of no plain English: %q", found)
			}
			summary, _, _ := strings.Cut(help, "\n")
			if len(summary) < 10 || strings.Index(summary, ".") != len(summary)-1 {
				t.Errorf("no summary in one sentence: %q", summary)
			}
			for _, part := range []string{"\nUsage:\n", "\nExamples:\n", "\nFlags:\n"} {
				if !strings.Contains(help, part) {
					t.Errorf("no %q in:\n%s", part, help)
				}
			}
			if _, same, _ := run(t, "", append([]string{"help"}, words...)...); same != help {
				t.Errorf("ampbridge help prints another text:\n%s", same)
			}
		})
	})
}

// The commands of all examples parse: their flags exist, and have valid values.
func TestExamplesParse(t *testing.T) {
	each(New(), func(cmd *cobra.Command) {
		text := strings.ReplaceAll(cmd.Example, "\\\n", " ")
		for line := range strings.Lines(text) {
			_, rest, found := strings.Cut(line, "ampbridge ")
			if strings.HasPrefix(strings.TrimSpace(line), "#") || !found || strings.HasPrefix(rest, "~") {
				continue
			}
			rest, _, _ = strings.Cut(rest, " | ")
			rest, _, _ = strings.Cut(rest, " > ")
			args := strings.Fields(strings.Trim(strings.TrimSuffix(strings.TrimSpace(rest), "|"), ") "))
			root := New()
			each(root, func(c *cobra.Command) {
				c.RunE = func(*cobra.Command, []string) error { return nil }
			})
			root.SetArgs(args)
			if err := root.Execute(); err != nil {
				t.Errorf("%s: %q: %v", cmd.CommandPath(), args, err)
			}
		}
	})
}

// The same flag means the same in every command.
func TestFlagsMeanTheSame(t *testing.T) {
	placeholders := map[string]string{
		"policy": "FILE", "namespace": "NAMESPACE", "system-namespace": "NAMESPACE", "service-account": "NAME",
		"output":     "FORMAT",
		"kubeconfig": "FILE", "context": "NAME",
	}
	shorthands := map[string]string{"namespace": "n", "output": "o", "file": "f", "watch": "w", "server": "s", "help": "h"}
	each(New(), func(cmd *cobra.Command) {
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Hidden {
				return
			}
			name, _ := pflag.UnquoteUsage(f)
			if want, known := placeholders[f.Name]; known && name != want {
				t.Errorf("%s: --%s %s, want %s", cmd.CommandPath(), f.Name, name, want)
			}
			if f.Value.Type() != "bool" && !regexp.MustCompile(`^([A-Z]|s3:)`).MatchString(name) {
				t.Errorf("%s: --%s has no name for its value but %q", cmd.CommandPath(), f.Name, name)
			}
			if f.Name != "file" && f.Shorthand != shorthands[f.Name] {
				t.Errorf("%s: --%s has the shorthand %q, want %q", cmd.CommandPath(), f.Name, f.Shorthand, shorthands[f.Name])
			}
		})
	})
}

// A program of the name kubectl-ampbridge shows the commands as kubectl runs them.
func TestPluginShowsItsName(t *testing.T) {
	for _, path := range []string{"/usr/local/bin/kubectl-ampbridge", "kubectl-ampbridge.exe"} {
		each(newRoot(path), func(cmd *cobra.Command) {
			var help bytes.Buffer
			if err := writeHelp(&help, cmd); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(help.String(), "\nUsage:\n  kubectl ampbridge ") {
				t.Errorf("%s: usage:\n%s", path, help.String())
			}
			var names []string
			for _, c := range cmd.Root().Commands() {
				names = append(names, c.Name())
			}
			alone := regexp.MustCompile(`(?:^|[^l]) ampbridge (` + strings.Join(names, "|") + `)\b`)
			if found := alone.FindString(help.String()); found != "" || strings.Contains(help.String(), strings.Repeat("kubectl ", 2)) {
				t.Errorf("%s: %s: %q without kubectl:\n%s", path, cmd.CommandPath(), found, help.String())
			}
			for line := range strings.Lines(help.String()) {
				if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > helpWidth+len("kubectl ") {
					t.Errorf("%d columns: %s", n, line)
				}
			}
		})
	}
	if New().DisplayName() != "ampbridge" {
		t.Errorf("the program itself is %q", New().DisplayName())
	}
}

// The program for kubectl's completion calls the plugin with what kubectl gives it.
func TestKubectlCompletion(t *testing.T) {
	dir := t.TempDir()
	_, script, _ := run(t, "", "completion", "kubectl")
	called := filepath.Join(dir, "kubectl_complete-ampbridge")
	for name, text := range map[string]string{
		called:                                  script,
		filepath.Join(dir, "kubectl-ampbridge"): "#!/bin/sh\nprintf '[%s]' \"$@\"\n",
	} {
		if err := os.WriteFile(name, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), called, "doctor", "--output", "")
	cmd.Env = []string{"PATH=" + dir + ":" + os.Getenv("PATH")}
	if out, err := cmd.Output(); err != nil || string(out) != "[__complete][doctor][--output][]" {
		t.Errorf("%q, %v", out, err)
	}
}
