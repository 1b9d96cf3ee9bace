//go:build collectors

package collectors_test

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/tools"
)

// written are what `ampbridge config -o` prints: the goldens of its test.
const written = "../../../cmd/internal/preview/testdata/snippets/"

// snippets returns those of a program, by service account.
func snippets(t *testing.T, program string) map[string]string {
	t.Helper()
	files, err := filepath.Glob(written + program + ".*.txt")
	testkit.Must(t, err)
	if len(files) < 2 {
		t.Fatalf("%s: %d snippets, want two or more", program, len(files))
	}
	texts := map[string]string{}
	for _, file := range files {
		texts[strings.Split(filepath.Base(file), ".")[1]] = testkit.ReadFile(t, file)
	}
	return texts
}

// variables are what a pod of mode relay has.
var variables = map[string]string{
	sidecarconfig.WriteURLVariable: "http://127.0.0.1:24095/central", sidecarconfig.WriteUserVariable: "ampbridge",
}

// filled replaces what a cell's configuration has in braces.
var filled = strings.NewReplacer("{cell}", "writer", "{target}", "127.0.0.1:9090")

// TestCollectorTakesItsSnippets: `otelcol validate` takes each, beside a configuration that scrapes.
func TestCollectorTakesItsSnippets(t *testing.T) {
	program := tools.Path(t, "otelcol")
	password := testkit.TempFile(t, "relay-password", "secret")
	validate := func(ctx context.Context, text string) (string, error) {
		dir := t.TempDir()
		for name, content := range map[string]string{"config.yml": filled.Replace(collector), "snippet.yml": text} {
			testkit.WriteFile(t, filepath.Join(dir, name), content)
		}
		cmd := exec.CommandContext(ctx, program, "validate", "--config="+dir+"/config.yml", "--config="+dir+"/snippet.yml")
		cmd.Env = []string{"AWS_ACCESS_KEY_ID=AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY=secret", "AWS_EC2_METADATA_DISABLED=true"}
		for name, value := range variables {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	for account, text := range snippets(t, "opentelemetry") {
		text = strings.Replace(text, sidecarconfig.CredentialsDir+"/"+sidecarconfig.RelayPasswordFile, password, 1)
		if out, err := validate(t.Context(), text); err != nil {
			t.Errorf("%s: %v\n%s", account, err, out)
		}
		for name, change := range map[string][2]string{
			"an unknown field":         {"endpoint:", "end_point:"},
			"an extension that is not": {"    - ", "    - other/"},
		} {
			wrong := strings.Replace(text, change[0], change[1], 1)
			if out, err := validate(t.Context(), wrong); wrong == text || err == nil {
				t.Errorf("%s with %s is taken: %s", account, name, out)
			}
		}
	}
}

// TestVmagentTakesItsSnippets: `vmagent -dryRun` takes the arguments of each.
func TestVmagentTakesItsSnippets(t *testing.T) {
	program := tools.Path(t, "vmagent")
	dir := t.TempDir()
	for name, content := range map[string]string{"scrape.yml": filled.Replace(scrape), "password": "secret"} {
		testkit.WriteFile(t, filepath.Join(dir, name), content)
	}
	expand := strings.NewReplacer("$("+sidecarconfig.WriteURLVariable+")", variables[sidecarconfig.WriteURLVariable],
		"$("+sidecarconfig.WriteUserVariable+")", variables[sidecarconfig.WriteUserVariable],
		"$("+sidecarconfig.WritePasswordFileVariable+")", filepath.Join(dir, "password"))
	dryRun := func(args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), program, append(args, "-dryRun", "-promscrape.config="+dir+"/scrape.yml",
			"-remoteWrite.tmpDataPath="+dir)...)
		cmd.Env = []string{}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	for account, text := range snippets(t, "vmagent") {
		var values struct{ Args []string }
		testkit.Must(t, yaml.Unmarshal([]byte(text), &values))
		for i, arg := range values.Args {
			values.Args[i] = expand.Replace(arg)
		}
		if out, err := dryRun(values.Args...); err != nil {
			t.Errorf("%s: %v\n%s", account, err, out)
		}
		for _, wrong := range []string{"-remoteWrite.forcePromProtocol", "-remoteWrite.queues=one"} {
			if out, err := dryRun(append(values.Args, wrong)...); err == nil {
				t.Errorf("%s with %s is taken: %s", account, wrong, out)
			}
		}
	}
}
