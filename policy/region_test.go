package policy_test

import (
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/policytest"
)

const inRegion = `apiVersion: ampbridge.io/v1alpha1
kind: Policy
cluster: {name: dev}
destinations:
- name: central
  workspace: "arn:PARTITION:aps:REGION:111122223333:workspace/ws-0123abcd"
trust: {manage: none}
`

// Typing mistakes are refused, and a region that AWS adds later only gets a note.
func TestRegions(t *testing.T) {
	const refused, noted, known = "is not a region", "does not know the region", ""
	for _, c := range []struct{ region, partition, want, hint string }{
		{"eu-centrl-1", "aws", refused, "did you mean eu-central-1?"},
		{"eu-wset-1", "aws", refused, "did you mean eu-west-1?"},
		{"us-east1", "aws", refused, "did you mean us-east-1?"},
		{"EU-WEST-1", "aws", refused, "did you mean eu-west-1?"},
		{"us-gv-east-1", "aws", refused, "did you mean us-gov-east-1?"},
		{"europe", "aws", refused, "as `aws amp list-workspaces` prints it"},
		{"eu-west-9", "aws", noted, "did you mean eu-west-"},
		{"ue-west-1", "aws", noted, "did you mean us-west-1?"},
		{"nz-south-1", "aws", noted, ""},
		{"eu-west-1", "aws", known, ""},
		{"ap-southeast-7", "aws", known, ""},
		{"us-gov-west-1", "aws-us-gov", known, ""},
		{"cn-northwest-1", "aws-cn", known, ""},
		{"us-isob-east-1", "aws-iso-b", known, ""},
		{"eu-isoe-west-1", "aws-iso-e", known, ""},
		{"eusc-de-east-1", "aws-eusc", known, ""},
	} {
		p, err := policy.Parse([]byte(strings.NewReplacer("REGION", c.region, "PARTITION", c.partition).Replace(inRegion)))
		var got string
		if err != nil {
			got = err.Error()
		} else {
			got = p.Notes().Error()
		}
		if (err != nil) != (c.want == refused) || (got == "") != (c.want == known) ||
			!strings.Contains(got, c.want) || !strings.Contains(got, c.hint) ||
			got != "" && !strings.Contains(got, "destinations[0].workspace: ") {
			t.Errorf("%s: %q, %v", c.region, got, err)
		}
	}
}

// The regions in the host names of AWS's endpoints are checked, and other hosts are not.
func TestRegionsOfEndpoints(t *testing.T) {
	text := strings.NewReplacer("REGION", "eu-west-1", "PARTITION", "aws").Replace(inRegion)
	for _, endpoint := range []string{
		"https://sts.eu-centrl-1.amazonaws.com",
		"https://aps-workspaces.eu-wset-1.amazonaws.com",
		"https://vpce-0123456789abcdef0-1a2b3c4d.sts.eu-nroth-1.vpce.amazonaws.com",
		"https://sts.ap-sutheast-2.api.aws",
		"https://sts.us-east2.amazonaws.com",
	} {
		_, err := policy.Parse([]byte(text + "sts: {endpoint: \"" + endpoint + "\"}\n"))
		if err == nil || !strings.Contains(err.Error(), "sts.endpoint: ") || !strings.Contains(err.Error(), "did you mean ") {
			t.Errorf("%s: %v", endpoint, err)
		}
	}
	for _, endpoint := range []string{
		"https://sts.eu-central-1.amazonaws.com",
		"https://sts.amazonaws.com",
		"https://sts-fips.us-west-2.amazonaws.com",
		"https://vpce-0123456789abcdef0-1a2b3c4d-eu-north-1a.sts.eu-north-1.vpce.amazonaws.com",
		"https://sts.us-isob-east-1.sc2s.sgov.gov",
		"https://aps-workspaces.eusc-de-east-1.amazonaws.eu",
		"https://sts.cn-northwest-1.api.amazonwebservices.com.cn",
		"https://sts.us-gov-west-1.amazonaws.com",
		"https://ec2-192-0-2-1.compute-1.amazonaws.com",
		"https://ec2-192-0-2-1.eu-west-1.compute.amazonaws.com",
		"https://proxy-1a2b.elb.eu-west-1.amazonaws.com",
		"https://proxy-1a2b.eu-west-1.elb.amazonaws.com",
		"https://dist1a2b.execute-api.us-west-2.amazonaws.com",
		"https://bucket.s3.amazonaws.com",
		"https://gateway-eu-centrl-1.corp.example",
		"https://sts.mars-1.corp.example",
		"https://127.0.0.1:4566",
	} {
		policytest.Parse(t, text+"sts: {endpoint: \""+endpoint+"\"}\n")
	}
}

func TestOtherDocumentsGetOneError(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"pod":             {"apiVersion: v1\nkind: Pod\nspec: {}\n", "line 2: kind: is Pod: write a policy, with apiVersion: ampbridge.io"},
		"custom resource": {"apiVersion: monitoring.coreos.com/v1\nkind: Prometheus\n", "line 2: kind: is Prometheus: write a policy"},
		"list":            {`{"apiVersion": "v1", "kind": "List", "items": []}`, "line 1: kind: is List: "},
		"ConfigMap":       {"apiVersion: v1\nkind: ConfigMap\ndata: {policy.yaml: ''}\n", `yq '.data["policy.yaml"]' FILE`},
		"chart's values":  {"image: {tag: v1}\npolicy:\n  cluster: {name: dev}\n", "is a values file of the chart: "},
		"tab":             {"kind: Policy\ncluster:\n\tname: dev\n", "line 3: not YAML: a tab indents this line"},
		"Terraform":       {"resource \"aws_iam_role\" \"x\" {\n  name = \"x\"\n}\n", "has no field of a policy: write a policy, with "},
		"list of names":   {"- a\n- b\n", "has no field of a policy: "},
		"Prometheus":      {"global: {}\nscrape_configs: []\n", "has no field of a policy: "},
		"two policies":    {inRegion + "---\n" + inRegion, "write each into a file of its own"},
	} {
		_, err := policy.Parse([]byte(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPolicyInValuesOfTheChart(t *testing.T) {
	inner := "image: {tag: v1}\npolicy:\n  cluster: {name: dev}\n  destinations:\n" +
		"  - {name: central, workspace: \"arn:aws:aps:eu-west-1:111122223333:workspace/ws-0123abcd\"}\n  trust: {manage: none}\n"
	p, err := policy.ParseValues([]byte(inner))
	if err != nil || p.Cluster.Name != "dev" {
		t.Errorf("%+v, %v", p, err)
	}
	_, err = policy.ParseValues([]byte(strings.Replace(inner, "name: dev", "name: Dev", 1)))
	if err == nil || !strings.HasPrefix(err.Error(), "line 3: cluster.name: ") {
		t.Errorf("the line of a mistake: %v", err)
	}
	_, err = policy.ParseValues([]byte("policyConfigMap: {existing: a}\npolicy: {}\n"))
	if err == nil || !strings.Contains(err.Error(), "destinations: is empty") || strings.Contains(err.Error(), "kind") {
		t.Errorf("an empty policy: %v", err)
	}
	if _, err := policy.ParseValues([]byte(inRegion)); err == nil || !strings.Contains(err.Error(), "REGION") {
		t.Errorf("a plain policy: %v", err)
	}
}
