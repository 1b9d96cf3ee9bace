package grantlist

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// seed is an entry as such modules document it.
const seed = `
    {
      "description": "To grant access to the remote EKS cluster",
      "eks_cluster_oidc_issuer_url": "https://xxxxxxxxxxxxxxxxxxxxx.sk1.us-east-1.eks.amazonaws.com",
      "environment_name": "dev",
      "instance_name": "dev cluster",
      "kube_service_account_name": "kube-prometheus-stack-prometheus",
      "namespace": "monitoring",
      "oidc_provider_client_id_list": ["sts.amazonaws.com"],
      "oidc_provider_thumbprint_list": ["9e99a48a9960b14926bb7f3b02e22da2b0ab7280"],
      "oidc_provider_url": "https://oidc.eks.us-east-1.amazonaws.com/id/B4EA44BE30ABD91AC23C475F3237111"
    }`

const tfvars = `iam_access_grant_list = [
  {
    description                   = "To grant access to the remote EKS cluster"
    eks_cluster_oidc_issuer_url   = "https://xxxxxxxxxxxxxxxxxxxxx.sk1.us-east-1.eks.amazonaws.com"
    environment_name              = "dev"
    instance_name                 = "dev cluster"
    kube_service_account_name     = "kube-prometheus-stack-prometheus"
    namespace                     = "monitoring" # of the chart
    oidc_provider_client_id_list  = ["sts.amazonaws.com"]
    oidc_provider_thumbprint_list = ["9e99a48a9960b14926bb7f3b02e22da2b0ab7280"]
    oidc_provider_url             = "https://oidc.eks.us-east-1.amazonaws.com/id/B4EA44BE30ABD91AC23C475F3237111"
  },
]
`

func TestParse(t *testing.T) {
	want, err := Parse([]byte("["+seed+"]"), "list.json")
	testkit.Must(t, err)
	if want[0].ServiceAccount != "kube-prometheus-stack-prometheus" || want[0].Unknown != nil {
		t.Errorf("%+v", want[0])
	}
	for name, text := range map[string]string{
		"an object of JSON": `{"tags": {}, "iam_access_grant_list": [` + seed + `]}`,
		"tfvars":            "workspace_alias = \"prometheus\"\n" + tfvars,
		"a module":          "module \"amp\" {\n  source = \"./amp\"\n  tags = local.tags\n" + tfvars + "}\n",
	} {
		got, err := Parse([]byte(text), "file")
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-JSON +got):\n%s", name, diff)
		}
	}
}

func TestParseMistakes(t *testing.T) {
	for text, want := range map[string]string{
		"":                       "is empty",
		"[]":                     "is empty",
		`[{"namespace": ["a"]}]`: "must be a list of entries",
		`{"grants": []}`:         "has no iam_access_grant_list",
		"{":                      "not JSON",
		"tags = {}\n":            "does not set iam_access_grant_list",
		tfvars + "module \"a\" {\n" + tfvars + "}":                        "2 times",
		"iam_access_grant_list = [":                                       "Missing expression",
		strings.Replace(tfvars, `"monitoring"`, "var.namespace", 1):       "refers to another value",
		strings.Replace(tfvars, `"monitoring"`, `"${local.ns}-x"`, 1):     "refers to another value",
		strings.Replace(tfvars, `"monitoring"`, `file("/etc/passwd")`, 1): "refers to another value",
		"iam_access_grant_list = null\n":                                  "has no value",
		"resource \"x\" \"y\" {\n" + tfvars + "}\n":                       "does not set iam_access_grant_list",
	} {
		if list, err := Parse([]byte(text), "file.tf"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, %v; want %q", text, list, err, want)
		}
	}
}

var options = Options{Destination: "central"}

func init() {
	if err := options.Workspace.UnmarshalText([]byte("arn:aws:aps:eu-west-1:111122223333:workspace/ws-0001")); err != nil {
		panic(err)
	}
}

const (
	issuer1 = "https://oidc.eks.us-east-1.amazonaws.com/id/AAAA"
	issuer2 = "https://oidc.eks.us-east-1.amazonaws.com/id/BBBB"
)

func entry(environment, issuer, namespace, account string) Entry {
	return Entry{
		Environment:    environment,
		Instance:       "one",
		Issuer:         issuer,
		Namespace:      namespace,
		ServiceAccount: account,
		Audiences:      []string{"sts.amazonaws.com"},
	}
}

func TestConvertTheSeed(t *testing.T) {
	list, err := Parse([]byte(tfvars), "terraform.tfvars")
	testkit.Must(t, err)
	clusters, findings := Convert(list, options)
	const want = `# Made by ampbridge bootstrap policy from an iam_access_grant_list. Every field is explained in docs/reference/policy.md.
apiVersion: ampbridge.io/v1alpha1
kind: Policy
cluster:
  name: dev
  issuer: https://oidc.eks.us-east-1.amazonaws.com/id/B4EA44BE30ABD91AC23C475F3237111
destinations:
- name: central
  workspace: arn:aws:aps:eu-west-1:111122223333:workspace/ws-0001
grants:
# To grant access to the remote EKS cluster
- namespaces: ["monitoring"]
  serviceAccounts:
  - "kube-prometheus-stack-prometheus"
  destinations: [central]
trust:
  permissionsBoundary: arn:aws:iam::111122223333:policy/ampbridge-boundary.dev
`
	if len(clusters) != 1 {
		t.Fatal(clusters, findings)
	}
	if diff := cmp.Diff(want, string(clusters[0].Policy)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if text := fmt.Sprint(
		findings,
	); strings.Contains(text, "not converted") || !strings.Contains(text, "thumbprints are left out") ||
		!strings.Contains(text, "eks_cluster_oidc_issuer_url is left out") {
		t.Errorf("findings %s", text)
	}
}

// The weaknesses of the module: two service accounts of a cluster collide there, and so does a
// repeated environment.
func TestConvertSeveral(t *testing.T) {
	clusters, findings := Convert([]Entry{
		entry("dev", issuer1, "monitoring", "prometheus"),
		entry("dev", issuer1, "monitoring", "second"),
		entry("dev", issuer2, "monitoring", "prometheus"),
		entry("test", issuer1, "team-a", "prometheus"),
		entry("dev", issuer1, "monitoring", "second"),
	}, options)
	got := map[string]string{}
	for _, c := range clusters {
		p, err := policy.Parse(c.Policy)
		if err != nil {
			t.Fatalf("%v\n%s", err, c.Policy)
		}
		for _, g := range p.Grants {
			got[c.Name+" "+string(p.Cluster.Issuer)] += fmt.Sprint(g.Namespaces, g.ServiceAccounts)
		}
	}
	if diff := cmp.Diff(map[string]string{
		"dev " + issuer1: "[monitoring] [prometheus second][team-a] [prometheus]", "dev-one " + issuer2: "[monitoring] [prometheus]",
	}, got); diff != "" {
		t.Errorf("(-want +got):\n%s\n%v", diff, findings)
	}
	for _, part := range []string{`[4] ("monitoring/second"): note: is the same service account`, `[3] ("team-a/prometheus"): ` +
		`note: environment_name "test": the issuer is that of cluster dev`, "[2] (\"monitoring/prometheus\"): note: " +
		"the cluster is called dev-one"} {
		if !strings.Contains(fmt.Sprint(findings), part) {
			t.Errorf("no finding %q in %v", part, findings)
		}
	}
}

// Whatever cannot be converted is named, and the rest is; nothing that somebody wrote
// becomes anything but the name that it is.
func TestConvertNamesWhatIsLost(t *testing.T) {
	good := entry("prod", issuer2, "monitoring", "prometheus")
	with := func(change func(*Entry)) Entry {
		e := entry("dev", issuer1, "monitoring", "prometheus")
		change(&e)
		return e
	}
	for name, e := range map[string]Entry{
		"a wildcard":                with(func(e *Entry) { e.ServiceAccount = "*" }),
		"a variable":                with(func(e *Entry) { e.Namespace = "${aws:username}" }),
		"YAML in a name":            with(func(e *Entry) { e.Namespace = "a\"]\n- namespaces: [\"*" }),
		"no namespace":              with(func(e *Entry) { e.Namespace = "" }),
		"an issuer with a port":     with(func(e *Entry) { e.Issuer = "https://10.0.0.1:6443" }),
		"an issuer that is none":    with(func(e *Entry) { e.Issuer = issuer1 + "\nname: x" }),
		"no issuer":                 with(func(e *Entry) { e.Issuer = "" }),
		"another audience":          with(func(e *Entry) { e.Audiences = []string{"api://AzureADTokenExchange"} }),
		"no name":                   with(func(e *Entry) { e.Environment, e.Instance = "!!", "" }),
		"the name of another (all)": with(func(e *Entry) { e.Environment, e.Instance = "prod", "" }),
	} {
		clusters, findings := Convert([]Entry{good, e}, options)
		lost := 0
		for _, f := range findings {
			if f.Lost && f.Entry == 1 {
				lost++
			}
		}
		if lost != 1 || len(clusters) != 1 || clusters[0].Name != "prod" || strings.Contains(string(clusters[0].Policy), issuer1) {
			t.Errorf("%s: %d clusters, findings %v", name, len(clusters), findings)
		}
	}
	noted := with(func(e *Entry) {
		e.Description, e.Unknown = "first\nkind: Secret\u2028x", []string{"role_name"}
		e.Environment = `"; DROP`
	})
	clusters, findings := Convert([]Entry{noted}, options)
	if len(clusters) != 1 || clusters[0].Name != "drop" || strings.Contains(string(clusters[0].Policy), "\nkind: Secret") ||
		!strings.Contains(fmt.Sprint(findings), `the field "role_name" is not known`) {
		t.Errorf("%v\n%v", findings, clusters)
	}
}
