package cli

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/ampbridge/ampbridge/cmd/internal/versions"
	"github.com/ampbridge/ampbridge/test/testkit"
)

const goodPolicy = `apiVersion: ampbridge.io/v1alpha1
kind: Policy
cluster: {name: dev}
destinations:
- {name: central, workspace: "arn:aws:aps:eu-west-1:111122223333:workspace/ws-0001"}
grants:
- {namespaces: [monitoring], serviceAccounts: [prometheus], destinations: [central]}
trust: {manage: none}
`

// run is the program, with a directory that holds good.yaml and bad.yaml.
func run(t *testing.T, stdin string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	t.Chdir(t.TempDir())
	for name, text := range map[string]string{
		"empty":     "",
		"good.yaml": goodPolicy,
		// The chart adds apiVersion and kind.
		"values.yaml": "image: {tag: v1}\npolicy:\n  " + strings.ReplaceAll(strings.SplitN(goodPolicy, "\n", 3)[2], "\n", "\n  "),
		"bad.yaml":    strings.NewReplacer("name: dev", "nam: dev", "[central]", "[centrl]").Replace(goodPolicy),
	} {
		testkit.WriteFile(t, name, text)
	}
	// Neither the machine's kubeconfig nor its pod's.
	t.Setenv("KUBECONFIG", "empty")
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	var out, errs bytes.Buffer
	status = Main(t.Context(), args, strings.NewReader(stdin), &out, &errs)
	return status, out.String(), errs.String()
}

// policyAsJSON returns the good policy as JSON.
func policyAsJSON() string {
	text, err := yaml.YAMLToJSON([]byte(goodPolicy))
	if err != nil {
		panic(err)
	}
	return string(text)
}

func TestStatusAndErrors(t *testing.T) {
	for _, c := range []struct {
		name, args string
		stdin      string
		status     int
		stdout     string
		stderr     []string // parts; without any it is empty
	}{
		{"valid", "validate good.yaml", "", OK, "good.yaml: ok: cluster dev, 1 destination, 1 grant\n", nil},
		{"valid, from standard input", "validate -", goodPolicy, OK, "-: ok: cluster dev, 1 destination, 1 grant\n", nil},
		{"all mistakes at once", "validate good.yaml bad.yaml missing.yaml", "", Failed, "good.yaml: ok: cluster dev, 1 destination, 1 " +
			"grant\n", []string{
			"ampbridge: bad.yaml: line 3: cluster.nam: unknown field: did you mean name?\n",
			"ampbridge: bad.yaml: line 7: grants[0].destinations[0]: \"centrl\" is not a destination of this policy",
			"ampbridge: open missing.yaml: no such file or directory\nampbridge: the file does not exist: missing.yaml\n",
		}},
		{"a file almost right", "plan --policy god.yaml", "", Failed, "", []string{
			"ampbridge: the file of --policy does not exist: god.yaml: did you mean good.yaml"}},
		{"an argument almost right", "validate ./god.yaml", "", Failed, "", []string{"does not exist: ./god.yaml: did you mean ./good.yaml"}},
		{"a file to inject", "inject -f pod.json --policy good.yaml", "", Failed, "", []string{"the file of --file does not exist: pod.json\n"}},
		{"one file of several", "validate --policy good.yaml --policy god.yaml", "", Failed,
			"good.yaml: ok: cluster dev, 1 destination, 1 grant\n",
			[]string{"the file of --policy does not exist: god.yaml"}},
		{"by flag and argument", "validate --policy good.yaml --policy - good.yaml", goodPolicy, OK,
			"good.yaml: ok: cluster dev, 1 " +
				"destination, 1 grant\n-: ok: cluster dev, 1 destination, 1 grant\n" +
				"good.yaml: ok: cluster dev, 1 destination, 1 grant\n", nil},
		{"mistakes on standard input", "validate -", "kind: [", Failed, "", []string{"ampbridge: standard input: line 2: not YAML: "}},
		{"the chart's values", "validate values.yaml", "", OK, "values.yaml: ok: cluster dev, 1 destination, 1 grant\n", nil},
		{"values for another command", "bootstrap --policy values.yaml", "", Failed, "", []string{
			"ampbridge: values.yaml: is a values file of the chart: take the policy out of it, with yq "}},
		{"a pod", "validate -", "apiVersion: v1\nkind: Pod\n", Failed, "", []string{
			"ampbridge: standard input: line 2: kind: is Pod: write a policy, with apiVersion: ampbridge.io/v1alpha1 and kind: Policy\n"}},
		{"a policy as JSON", "validate -", policyAsJSON(), OK, "-: ok: cluster dev, 1 destination, 1 grant\n", nil},
		{"an empty file", "validate empty", "", Failed, "", []string{"ampbridge: empty: the file is empty: write apiVersion: "}},
		{"a directory", "validate .", "", Failed, "", []string{"ampbridge: . is a directory: name a file in it\n"}},
		{"a directory as the policy", "plan --policy .", "", Failed, "", []string{"ampbridge: . is a directory: name a file in it\n"}},
		{"an unknown region", "validate -", strings.Replace(goodPolicy, "eu-west-1", "eu-west-9", 1), OK,
			"-: ok: cluster dev, 1 destination, 1 grant\n",
			[]string{"ampbridge: -: note: destinations[0].workspace: this version does not know the region eu-west-9 (did you mean eu-west-"}},
		{"no argument", "validate", "", Usage, "",
			[]string{"ampbridge: --policy is missing: write for example --policy policy.yaml\n",
				"ampbridge: see ampbridge validate --help\n"}},
		{"standard input twice", "validate - good.yaml -", goodPolicy, Usage, "", []string{"ampbridge: standard input is named twice"}},
		{"unknown command", "sink", "", Usage, "",
			[]string{`ampbridge: unknown command "sink" for "ampbridge": did you mean sync?` + "\n"}},
		{"unknown command, the beginning of one", "disc", "", Usage, "",
			[]string{`"disc" for "ampbridge": did you mean discover?`}},
		{"unknown command that resembles none", "frobnicate", "", Usage, "",
			[]string{`unknown command "frobnicate" for "ampbridge"` + "\n"}},
		{"unknown command of a group", "issuer publsh", "", Usage, "",
			[]string{`"publsh" for "ampbridge issuer": did you mean publish?`}},
		{"unknown command below a command", "bootstrap polcy", "", Usage, "",
			[]string{`"polcy" for "ampbridge bootstrap": did you mean policy?`}},
		{"unknown shell", "completion bsh", "", Usage, "",
			[]string{`"bsh" for "ampbridge completion": did you mean bash or zsh?`}},
		{"help of an unknown command", "doctr --help", "", Usage, "",
			[]string{`unknown command "doctr" for "ampbridge": did you mean doctor?`, "ampbridge: see ampbridge --help\n"}},
		{"help of an unknown command of a group", "issuer publsh -h", "", Usage, "", []string{`did you mean publish?`}},
		{"help of an unknown command behind a flag", "bootstrap --policy good.yaml polcy --help", "", Usage, "",
			[]string{`did you mean policy?`}},
		{"help about an unknown command", "help doctr", "", Usage, "",
			[]string{`unknown command "doctr" for "ampbridge": did you mean doctor?`}},
		{"help about an unknown command of a group", "help issuer publsh", "", Usage, "", []string{`did you mean publish?`}},
		{"an argument that is a policy", "plan policy.yaml", "", Usage, "",
			[]string{`"policy.yaml": did you mean --policy policy.yaml?`}},
		{"an argument that is nothing", "doctor prometheus", "", Usage, "",
			[]string{`unexpected argument "prometheus": ampbridge doctor takes flags`}},
		{"unknown shorthand", "doctor -x", "", Usage, "", []string{"unknown flag: -x\n"}},
		{"kubectl's name for a flag of another meaning", "plan --namespace a", "", Usage, "",
			[]string{"did you mean --system-namespace?"}},
		{"kubectl's flag for a file", "plan -f good.yaml", "", Usage, "", []string{"unknown flag: -f: did you mean --policy?\n"}},
		{"a file to validate", "validate --file good.yaml", "", Usage, "", []string{"unknown flag: --file: did you mean --policy?"}},
		{"a short policy", "inject -p good.yaml", "", Usage, "", []string{"unknown flag: -p: did you mean --policy?"}},
		{"a configuration", "bootstrap --config good.yaml", "", Usage, "", []string{"unknown flag: --config: did you mean --policy?\n"}},
		{"a dry run of what changes nothing", "bootstrap --dry-run", "", Usage, "", []string{"changes nothing without --apply"}},
		{"a plan that changes nothing", "plan --dry-run", "", Usage, "", []string{"plan changes nothing: leave it out"}},
		{"a policy for discover", "discover --policy a", "", Usage, "",
			[]string{"reads the cluster and no file; for files use ampbridge inject"}},
		{"a file for discover", "discover -f a", "", Usage, "", []string{"unknown flag: -f: discover reads the cluster and no file"}},
		{"all namespaces", "discover -A", "", Usage, "", []string{"discover reads all namespaces: leave it out"}},
		{"a format almost right", "bootstrap -o awscli", "", Usage, "", []string{
			`--output "awscli" is unknown: write text, json, yaml, terraform or aws-cli: did you mean aws-cli?`}},
		{"flag without its value", "doctor --policy", "", Usage, "",
			[]string{"--policy needs a value: write --policy FILE\n"}},
		{"duration without a unit", "doctor --wait 5", "", Usage, "",
			[]string{`--wait "5" is invalid: write a duration, such as 30s, 5m or 1h`}},
		{"number in words", "plan --trust-quota many", "", Usage, "",
			[]string{`--trust-quota "many" is invalid: write a whole number`}},
		{"timeout of a request", "status --request-timeout soon", "", Usage, "",
			[]string{`--request-timeout "soon" is invalid: write a duration`}},
		{"old name and new name", "status --ampbridge-namespace a --system-namespace b", "", Usage, "",
			[]string{"--ampbridge-namespace and --system-namespace are the same flag"}},
		{"old name", "status --ampbridge-namespace a", "", Failed, "",
			[]string{"ampbridge: --ampbridge-namespace is deprecated: use --system-namespace\n", "no Kubernetes cluster"}},
		{"no such context", "status --context elsewhere", "", Failed, "", []string{`context "elsewhere" does not exist`}},
		{"unknown flag", "sync --polcy x", "", Usage, "",
			[]string{"ampbridge: unknown flag: --polcy: did you mean --policy?\n"}},
		{"missing flag", "sync --once", "", Usage, "",
			[]string{"ampbridge: --policy is missing: write for example --policy policy.yaml\n", "ampbridge: " +
				"see ampbridge sync --help\n"}},
		{"the controller form shrinks nothing", "sync --policy good.yaml --allow-shrink", "", Usage, "", []string{"--allow-shrink is " +
			"for --once"}},
		{"a status page for all", "sync --policy good.yaml --status-addr :8082", "", Usage, "",
			[]string{"--status-addr \":8082\"", "127.0.0.1:8082"}},
		{"a status page on a pod's address", "sync --policy good.yaml --status-addr 10.0.0.7:8082", "", Usage, "", []string{"not on loopback"}},
		{"a status page of one run", "sync --once --policy good.yaml --status-addr 127.0.0.1:8082", "", Usage, "",
			[]string{"--status-addr is for"}},
		{"the controller form is no dry run", "sync --policy good.yaml --dry-run", "", Usage, "", []string{"--dry-run is for --once"}},
		{"the controller form reads its file again", "sync --policy -", "", Usage, "", []string{"--policy - is for --once"}},
		{"removal and a run", "sync --once --remove --policy good.yaml", "", Usage, "", []string{"--once and --remove exclude each other"}},
		{"confirmation of nothing", "sync --once --yes --policy good.yaml", "", Usage, "", []string{"--yes is for --remove"}},
		{"quota below AWS's own", "sync --once --policy good.yaml --trust-quota 100", "", Usage, "", []string{"--trust-quota 100"}},
		{"level of sync's log", "sync --policy good.yaml --log-level loud", "", Usage, "", []string{"--log-level", "loud", `debug, info`}},
		{"webhook with names and no CA", "webhook --policy good.yaml --image i --cert-dir d --client-name a", "", Usage, "",
			[]string{"ampbridge: --client-name is for --client-ca: name the file"}},
		{"webhook without certificates", "webhook --policy good.yaml --image i", "", Usage, "", []string{"ampbridge: --cert-dir is " +
			"missing, or --cert-secret with --service: "}},
		{"webhook with certificates of both kinds", "webhook --policy good.yaml --image i --cert-dir d --cert-secret s", "", Usage, "",
			[]string{"ampbridge: --cert-dir and " +
				"--cert-secret exclude each other: drop one\n"}},
		{"webhook with a service that it does not need", "webhook --policy good.yaml --image i --cert-dir d --service s", "", Usage, "",
			[]string{"ampbridge: --service " +
				"belongs " +
				"to " +
				"--cert-secret: drop it, or --cert-dir\n"}},
		{"webhook with a configuration that it does not need", "webhook --policy good.yaml --image i --cert-dir d " +
			"--webhook-configuration c", "", Usage, "", []string{"ampbridge: --webhook-configuration belongs to --cert-secret: drop it, " +
			"or --cert-dir\n"}},
		{"webhook without a service", "webhook --policy good.yaml --image i --cert-secret s --system-namespace n", "", Usage,
			"",
			[]string{"ampbridge: --service is " +
				"missing: " +
				"--cert-secret needs it\n"}},
		{"webhook without a namespace", "webhook --policy good.yaml --image i --cert-secret s --service s", "", Usage, "",
			[]string{"ampbridge: --system-namespace is " +
				"missing: " +
				"--cert-secret needs it\n"}},
		{"no such kubeconfig", "plan --policy good.yaml --kubeconfig missing", "", Failed, "", []string{"ampbridge: no Kubernetes cluster: "}},
		{"no kubeconfig at all", "plan --policy good.yaml", "", Failed, "", []string{"ampbridge: no Kubernetes cluster: name a " +
			"kubeconfig with --kubeconfig"}},
		{"doctor of a pod of another", "doctor --in-pod -n monitoring", "", Usage, "", []string{"--in-pod checks its own pod"}},
		{"doctor of a service account nowhere", "doctor --service-account prometheus", "", Usage, "", []string{"--service-account " +
			"needs --namespace"}},
		{"doctor waits backwards", "doctor --wait -1m", "", Usage, "", []string{"--wait=-1m0s: it must not be negative"}},
		{"doctor requires something else", "doctor --require pods", "", Usage, "", []string{
			`--require "pods" is unknown: write all, cluster or aws`}},
		{"doctor of a pod requires AWS", "doctor --in-pod --require aws", "", Usage, "", []string{"--in-pod", "--require all"}},
		{"doctor before an installation of nothing", "doctor --pre", "", Usage, "", []string{"--pre needs --policy FILE"}},
		{"doctor before an installation, in a pod", "doctor --pre --in-pod --policy a", "", Usage, "", []string{"leave out --in-pod"}},
		{"doctor in another format", "doctor -o xml", "", Usage, "",
			[]string{`--output "xml" is unknown: write text, json, yaml or html` + "\n"}},
		{"status in another format", "status -o html", "", Usage, "", []string{`--output "html" is unknown: write text, json or yaml` + "\n"}},
		{"status without a namespace", "status --system-namespace=", "", Usage, "", []string{"--system-namespace is empty"}},
		{"status without a namespace, by its old name", "status --ampbridge-namespace=", "", Usage, "", []string{"--system-namespace is empty"}},
		{"status too often", "status --interval 1ms", "", Usage, "", []string{"--interval 1ms is too short"}},
		{"status reads its input again", "status --watch --policy -", "", Usage, "", []string{"--policy - and --watch exclude each other"}},
		{"an issuer nowhere", "issuer publish", "", Usage, "", []string{"--to is missing: write for example --to s3://"}},
		{"a discovery document alone", "issuer publish --to x --discovery y", "", Usage, "", []string{"--discovery needs --keys"}},
		{"keys alone", "issuer publish --to x --keys y", "", Usage, "", []string{"--keys needs --discovery or --issuer"}},
		{"keys ahead of nothing", "issuer publish --to x --ahead", "", Usage, "", []string{"--ahead needs --issuer"}},
		{"keys kept too short", "issuer publish --to x --retain 10m", "", Usage, "", []string{"--retain 10m0s is shorter than tokens are valid"}},
		{"keys in a file that is missing", "issuer publish --to x --keys y --issuer ftp:", "", Failed, "",
			[]string{"the file of --keys does not exist: y"}},
		{"a delivery of its own", "config --delivery direct", "", Usage, "",
			[]string{`--delivery "direct" is unknown: write sigv4 or relay` + "\n"}},
		{"a bad policy", "plan --policy bad.yaml", "", Failed, "", []string{"ampbridge: bad.yaml: line 3: "}},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, stdout, stderr := run(t, c.stdin, strings.Fields(c.args)...)
			if status != c.status {
				t.Errorf("status %d, want %d", status, c.status)
			}
			if diff := cmp.Diff(c.stdout, stdout); diff != "" {
				t.Errorf("stdout (-want +got):\n%s", diff)
			}
			for _, part := range c.stderr {
				if !strings.Contains(stderr, part) {
					t.Errorf("stderr lacks %q:\n%s", part, stderr)
				}
			}
			if (len(c.stderr) == 0) != (stderr == "") || strings.Contains(stderr, "Usage:") {
				t.Errorf("stderr:\n%s", stderr)
			}
		})
	}
}

func TestVersion(t *testing.T) {
	_, line, _ := run(t, "", "--version")
	if !strings.HasPrefix(line, "ampbridge ") || !strings.Contains(line, "(go1.") {
		t.Errorf("--version prints %q", line)
	}
	// Without a cluster, the program still has a version.
	status, text, stderr := run(t, "", "version")
	if status != OK || !strings.Contains(text, "unavailable the cluster: no Kubernetes cluster: ") || stderr != "" {
		t.Errorf("status %d: %q, %q", status, text, stderr)
	}
	for _, format := range []string{"json", "yaml"} {
		status, text, _ := run(t, "", "version", "--client", "-o", format)
		var r versions.Report
		if err := yaml.UnmarshalStrict([]byte(text), &r); err != nil || status != OK {
			t.Fatalf("status %d, %v: %s", status, err, text)
		}
		if line != "ampbridge "+r.Client.String()+"\n" || r.Cluster != nil || len(r.Unavailable) > 0 {
			t.Errorf("%s: %+v", format, r)
		}
	}
}

func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell", "kubectl"} {
		if status, stdout, _ := run(t, "", "completion", shell); status != OK || !strings.Contains(stdout, "ampbridge") {
			t.Errorf("%s: status %d", shell, status)
		}
	}
}

// The shell completes files and directories only where a flag takes one.
func TestCompletionOfFiles(t *testing.T) {
	const files, none, directories = ":0\n", ":4\n", ":16\n"
	for args, want := range map[string]string{
		"doctor --policy": files, "config -f": files, "status --kubeconfig": files, "issuer publish --to": files,
		"webhook --cert-dir": directories, "bootstrap policy --dir": directories,
		"doctor --wait": none, "bootstrap --tag": none, "webhook --image": none, "version --token": none, "doctor": none, "validate": files,
	} {
		status, stdout, stderr := run(t, "", append(append([]string{"__complete"}, strings.Fields(args)...), "")...)
		if status != OK || stdout != want {
			t.Errorf("%s: status %d, %q, want %q\n%s", args, status, stdout, want, stderr)
		}
	}
}

// Without kubeconfig and policy no check runs, and that is not a success.
func TestDoctorWithoutAccessReportsSkippedChecks(t *testing.T) {
	status, stdout, stderr := run(t, "", "doctor")
	if status != Unchecked || !strings.HasPrefix(stderr, "ampbridge: 0 checks passed, 28 skipped") {
		t.Errorf("status %d, stderr %q", status, stderr)
	}
	for _, part := range []string{"– kubernetes       no Kubernetes cluster: name a kubeconfig", "– policy           there is no " +
		"cluster to read the policy from: pass its file with --policy", "– write "} {
		if !strings.Contains(stdout, part) {
			t.Errorf("stdout lacks %q:\n%s", part, stdout)
		}
	}
}
