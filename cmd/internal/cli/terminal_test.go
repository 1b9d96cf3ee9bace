package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/test/testkit"
)

func TestUseColor(t *testing.T) {
	for _, c := range []struct {
		name, flag    string
		terminal      bool
		noColor, term string
		want          bool
	}{
		{"on a terminal", "auto", true, "", "xterm-256color", true},
		{"into a file", "auto", false, "", "xterm-256color", false},
		{"NO_COLOR", "auto", true, "1", "xterm-256color", false},
		{"NO_COLOR with another value", "auto", true, "0", "xterm-256color", false},
		{"a terminal without colours", "auto", true, "", "dumb", false},
		{"always, into a file", "always", false, "", "", true},
		{"the flag is stronger than NO_COLOR", "always", true, "1", "dumb", true},
		{"never", "never", true, "", "xterm-256color", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			env := map[string]string{"NO_COLOR": c.noColor, "TERM": c.term}
			got, err := useColor(c.flag, c.terminal, func(name string) string { return env[name] })
			testkit.Must(t, err)
			if got != c.want {
				t.Errorf("colour: %v, want %v", got, c.want)
			}
		})
	}
}

// A file, a pipe and a device without a screen are no terminals.
func TestIsTerminal(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "file"))
	testkit.Must(t, err)
	defer func() { _ = file.Close() }()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	testkit.Must(t, err)
	defer func() { _ = null.Close() }()
	reader, writer, err := os.Pipe()
	testkit.Must(t, err)
	defer func() { _, _ = reader.Close(), writer.Close() }()
	if isTerminal(file) || isTerminal(null) || isTerminal(writer) || isTerminal(&bytes.Buffer{}) {
		t.Error("one of them counts as a terminal")
	}
	if screen, _ := pseudoTerminal(t); !isTerminal(screen) {
		t.Error("a pseudo-terminal does not count as a terminal")
	}
}

// doctorWithout runs doctor in a place without a cluster and AWS credentials.
func doctorWithout(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	isolate(t)
	var out, errs bytes.Buffer
	status = Main(t.Context(), append([]string{"doctor"}, args...), strings.NewReader(""), &out, &errs)
	return status, out.String(), errs.String()
}

// isolate takes away what doctor could find on this machine.
func isolate(t *testing.T) {
	t.Helper()
	t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "none"))
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	for _, name := range []string{"KUBERNETES_SERVICE_HOST", "AWS_ACCESS_KEY_ID", "AWS_PROFILE", "NO_COLOR"} {
		t.Setenv(name, "")
	}
	t.Setenv("TERM", "xterm-256color")
}

func TestColorFlag(t *testing.T) {
	status, _, stderr := doctorWithout(t, "--color", "yes")
	const want = `ampbridge: --color "yes" is unknown: write auto, always or never`
	if status != Usage || !strings.HasPrefix(stderr, want) {
		t.Errorf("status %d, %s", status, stderr)
	}
	const escape = "\x1b"
	for _, c := range []struct {
		args []string
		want bool
	}{
		{nil, false},
		{[]string{"--color", "always"}, true},
		{[]string{"--color", "never"}, false},
		{[]string{"--color", "always", "-o", "json"}, false},
		{[]string{"--color", "always", "-o", "html"}, false},
	} {
		if _, stdout, stderr := doctorWithout(t, c.args...); strings.Contains(stdout, escape) != c.want ||
			strings.Contains(stderr, escape) {
			t.Errorf("%v: escape codes: %v, want %v\n%q\n%q", c.args, !c.want, c.want, stdout, stderr)
		}
	}
}

// On a terminal the lines of the checks come before the verdict, in colour unless NO_COLOR
// forbids it. Elsewhere the verdict comes first.
func TestDoctorOnATerminal(t *testing.T) {
	const check, verdict = "kubernetes ", "Nothing could be checked"
	for _, c := range []struct {
		name, noColor string
		args          []string
		color, live   bool
	}{
		{"text", "", nil, true, true},
		{"NO_COLOR", "1", nil, false, true},
		{"JSON", "", []string{"-o", "json"}, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			isolate(t)
			t.Setenv("NO_COLOR", c.noColor)
			screen, shown := pseudoTerminal(t)
			var errs bytes.Buffer
			if status := Main(t.Context(), append([]string{"doctor"}, c.args...), strings.NewReader(""), screen,
				&errs); status != Unchecked {
				t.Fatalf("status %d: %s", status, errs.String())
			}
			text := shown()
			if strings.Contains(text, "\x1b") != c.color {
				t.Errorf("escape codes: %v, want %v in\n%q", !c.color, c.color, text)
			}
			first, second := strings.Index(text, check), strings.Index(text, verdict)
			if second < 0 || (first >= 0 && first < second) != c.live {
				t.Errorf("the first check is at %d, the verdict at %d of\n%s", first, second, text)
			}
		})
	}
	_, stdout, _ := doctorWithout(t)
	if !strings.HasPrefix(stdout, "– "+verdict) {
		t.Errorf("the verdict is not the first line:\n%s", stdout)
	}
}
