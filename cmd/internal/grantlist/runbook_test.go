package grantlist

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/tfconfig"
)

// The module's file in each form that it has.
func TestParseModule(t *testing.T) {
	want, err := Parse([]byte("["+seed+"]"), "list.json")
	testkit.Must(t, err)
	const more = "tags = { team = \"metrics\" }\nworkspace_alias = \"prometheus-test\"\n" +
		"account_id = \"111122223333\"\ninstance_name = \"env\"\n"
	for name, c := range map[string]struct{ text, address string }{
		"tfvars":   {more + tfvars, ""},
		"a module": {"module \"amp-prod\" {\n  source = \"./amp\"\n  version = local.version\n" + more + tfvars + "}\n", "module.amp-prod"},
		"defaults of variables": {`variable "tags" { default = { team = "metrics" } }
variable "workspace_alias" { default = "prometheus-test" }
variable "account_id" { default = "111122223333" }
variable "instance_name" { default = "env" }
variable "iam_access_grant_list" {
  type    = list(any)
  default = ` + strings.TrimPrefix(tfvars, "iam_access_grant_list = ") + "}\n", ""},
		"JSON": {`{"tags": {"team": "metrics"}, "workspace_alias": "prometheus-test", "account_id": "111122223333", "instance_name": "env",
			"iam_access_grant_list": [` + seed + `]}`, ""},
		"terraform output -json": {`{"id": {"sensitive": false, "type": "string", "value": "ws-0001"},
			"tags": {"type": ["map", "string"], "value": {"team": "metrics"}},
			"workspace_alias": {"type": "string", "value": "prometheus-test"}, "account_id": {"type": "string", "value": "111122223333"},
			"instance_name": {"type": "string", "value": "env"},
			"iam_access_grant_list": {"type": ["list", "dynamic"], "value": [` + seed + `]}}`, ""},
	} {
		m, err := ParseModule([]byte(c.text), "file")
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(Module{
			Address: c.address, Entries: want, Tags: map[string]string{"team": "metrics"}, Alias: "prometheus-test",
			AccountID: "111122223333", Instance: "env",
		}, m); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// Terraform takes a number or a bool where it wants a text.
func TestParseNumbers(t *testing.T) {
	m, err := ParseModule([]byte("account_id = 111122223333\ntags = { cost = 42, prod = true, team = \"a\" }\n"+tfvars), "terraform.tfvars")
	if diff := cmp.Diff(map[string]string{"cost": "42", "prod": "true", "team": "a"}, m.Tags); err != nil || diff != "" ||
		m.AccountID != "111122223333" {
		t.Errorf("account %q, %v, tags (-want +got):\n%s", m.AccountID, err, diff)
	}
}

// The output arn names the workspace.
func TestParseOutputs(t *testing.T) {
	const arn = "arn:aws:aps:eu-west-1:111122223333:workspace/ws-0001"
	m, err := ParseModule([]byte(`{"arn": {"sensitive": false, "type": "string", "value": "`+arn+`"},
		"prometheus_endpoint": {"type": "string", "value": "https://aps-workspaces.eu-west-1.amazonaws.com/workspaces/ws-0001/"},
		"iam_access_grant_list": {"type": ["list", "dynamic"], "value": [`+seed+`]}}`), "outputs.json")
	if err != nil || m.Workspace != arn || len(m.Entries) != 1 || len(m.Unknown) > 0 {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestRunbook(t *testing.T) {
	m, err := ParseModule([]byte("module \"amp\" {\nworkspace_alias = \"prometheus\"\ntags = { team = \"a b\" }\n"+tfvars+"}\n"), "main.tf")
	testkit.Must(t, err)
	second := m.Entries[0]
	second.Namespace, second.ServiceAccount = "tenant", "prometheus"
	third := m.Entries[0]
	third.Environment, third.Issuer = "qa", third.Issuer+"0"
	m.Entries = append(m.Entries, second, third)
	clusters, _ := Convert(m.Entries, Options{Workspace: workspace(t), Destination: "central", Tags: m.Tags})
	text := Runbook(m, clusters, RunbookOptions{From: "it's main.tf", Dir: "policies", Workspace: workspace(t), Destination: "central"})
	testkit.Golden(t, "testdata/runbook.md", []byte(text))
	// Every service account of the list is trusted before a pod of it moves, and moved before the module's go.
	order := []string{"injection=annotated", "annotate serviceaccount", "removed {", "adoptProvider: true"}
	for i, part := range order[1:] {
		if strings.LastIndex(text, order[i]) > strings.Index(text, part) {
			t.Errorf("%q comes after %q", order[i], part)
		}
	}
	for _, e := range m.Entries {
		if !strings.Contains(text, "annotate serviceaccount -n "+e.Namespace+" "+e.ServiceAccount+" ") {
			t.Errorf("%s/%s is not moved", e.Namespace, e.ServiceAccount)
		}
	}
	// The blocks are Terraform's.
	var blocks []string
	for line := range strings.SplitSeq(text, "\n") {
		if start := strings.HasPrefix(line, "    removed {"); start || len(blocks) > 0 && (strings.HasPrefix(line, "    ") || line == "") {
			blocks = append(blocks, strings.TrimPrefix(line, "    "))
		} else if len(blocks) > 0 {
			break
		}
	}
	if len(blocks) < 10 {
		t.Fatalf("no removed blocks in\n%s", text)
	}
	tfconfig.Check(t, []byte(strings.Join(blocks, "\n")))
}

func workspace(t *testing.T) (w policy.Workspace) {
	t.Helper()
	testkit.Must(t, w.UnmarshalText([]byte("arn:aws:aps:eu-west-1:111122223333:workspace/ws-0001")))
	return w
}
