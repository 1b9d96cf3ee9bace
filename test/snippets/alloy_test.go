package snippets

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/grafana/alloy/syntax/parser"
	"github.com/grafana/alloy/syntax/printer"
	"github.com/grafana/alloy/syntax/vm"
)

// file is a configuration with what prometheus.remote_write documents and a snippet uses:
// Alloy's decoder refuses every other name.
type file struct {
	Write []write `alloy:"prometheus.remote_write,block"`
}

type write struct {
	Label          string            `alloy:",label"`
	ExternalLabels map[string]string `alloy:"external_labels,attr,optional"`
	Endpoints      []endpoint        `alloy:"endpoint,block,optional"`
}

type endpoint struct {
	URL       string     `alloy:"url,attr"`
	BasicAuth *basicAuth `alloy:"basic_auth,block,optional"`
	SigV4     *sigV4     `alloy:"sigv4,block,optional"`
}

type basicAuth struct {
	Username     string `alloy:"username,attr,optional"`
	PasswordFile string `alloy:"password_file,attr,optional"`
}

type sigV4 struct {
	Region string `alloy:"region,attr,optional"`
}

// evaluate parses and decodes a configuration. Functions are Alloy's, but for sys.env,
// which the released version of its language has under its older name.
func evaluate(text string) (f file, err error) {
	parsed, err := parser.ParseFile("config.alloy", []byte(text))
	if err != nil {
		return f, err
	}
	variable := func(name string) string { return "value of " + name }
	scope := &vm.Scope{Variables: map[string]any{"sys": map[string]any{"env": variable}}}
	return f, vm.New(parsed).Evaluate(scope, &f)
}

// TestAlloy: Alloy's own parser and decoder take the snippets, and `alloy fmt` would leave
// them as they are.
func TestAlloy(t *testing.T) {
	signed := func(label, host, workspace, region string) write {
		return write{label, map[string]string{"cluster": "dev"}, []endpoint{{
			URL: "https://aps-workspaces." + host + "/workspaces/" + workspace + "/api/v1/remote_write", SigV4: &sigV4{region},
		}}}
	}
	want := map[string]write{
		"collector": signed("central", "eu-west-1.amazonaws.com", "ws-0001", "eu-west-1"),
		"several":   signed("second", "us-gov-west-1.amazonaws.com", "ws-0002", "us-gov-west-1"),
		"relayed": {"second", map[string]string{"cluster": "dev"}, []endpoint{{
			URL: "value of AMPBRIDGE_REMOTE_WRITE_URL", BasicAuth: &basicAuth{
				"value of AMPBRIDGE_REMOTE_WRITE_USERNAME", "value of AMPBRIDGE_REMOTE_WRITE_PASSWORD_FILE",
			},
		}}},
	}
	for _, name := range goldens(t, "alloy.", len(want)) {
		text := read(t, "alloy."+name)
		got, err := evaluate(text)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(file{[]write{want[name]}}, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		parsed, err := parser.ParseFile(name, []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		var formatted bytes.Buffer
		if err := printer.Fprint(&formatted, parsed); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(strings.TrimSpace(formatted.String()), strings.TrimSpace(text)); diff != "" {
			t.Errorf("%s is not formatted (-formatted +snippet):\n%s", name, diff)
		}
		for what, change := range map[string][2]string{
			"an unknown argument": {"url ", "uri "},
			"no end":              {"}\n}\n", "}\n"},
			"an unknown block":    {"endpoint {", "endpoints {"},
			"a wrong type":        {`{cluster = "dev"}`, `"dev"`},
			"no label":            {`remote_write "`, `remote_write = "`},
		} {
			wrong := strings.Replace(text, change[0], change[1], 1)
			if wrong == text {
				t.Fatalf("%s has no %q", name, change[0])
			}
			if _, err := evaluate(wrong); err == nil {
				t.Errorf("%s with %s is taken", name, what)
			}
		}
	}
}

// directory has what `ampbridge config -o` prints: the goldens of its test.
const directory = "../../cmd/internal/preview/testdata/snippets/"

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(directory + name + ".txt")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// goldens returns the service accounts for which there is a snippet of this kind.
func goldens(t *testing.T, prefix string, want int) (accounts []string) {
	t.Helper()
	files, err := filepath.Glob(directory + prefix + "*.txt")
	if err != nil || len(files) != want {
		t.Fatalf("%s: %d snippets, want %d (%v)", prefix, len(files), want, err)
	}
	for _, file := range files {
		accounts = append(accounts, strings.TrimSuffix(strings.TrimPrefix(filepath.Base(file), prefix), ".txt"))
	}
	return accounts
}
