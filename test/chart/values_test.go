package chart

import (
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/ampbridge/ampbridge/test/testkit"
)

func TestLint(t *testing.T) {
	for name, args := range map[string][]string{
		"defaults":   nil,
		"minimal":    {"-f", minimal},
		"everything": {"-f", everything},
	} {
		t.Run(name, func(t *testing.T) {
			out := mustHelm(t, append([]string{"lint", chartDir}, args...)...)
			if strings.Contains(out, "[WARNING]") || strings.Contains(out, "[ERROR]") {
				t.Error(out)
			}
		})
	}
}

// Values that are wrong are refused before anything is changed, with a message
// that names the field.
func TestTypos(t *testing.T) {
	for _, test := range []struct {
		name, values string
		// want are parts of the message.
		want []string
	}{
		{"a value of another chart", "replicaCount: 3", []string{"replicaCount"}},
		{"a misspelt field", "webhook: {replica: 3}", []string{"/webhook", "replica"}},
		{"a field in the wrong place", "failurePolicy: Fail", []string{"failurePolicy"}},
		{"a port that needs privileges", "webhook: {port: 443}", []string{"/webhook/port", "1,024"}},
		{"text for a port", `webhook: {port: "10250"}`, []string{"/webhook/port", "integer"}},
		{"another case", "webhook: {failurePolicy: fail}", []string{"/webhook/failurePolicy", "Fail"}},
		{"text for a number", `webhook: {replicas: "2"}`, []string{"/webhook/replicas", "integer"}},
		{"text for a boolean", `sync: {enabled: "false"}`, []string{"/sync/enabled", "boolean"}},
		{"out of bounds", "webhook: {timeoutSeconds: 60}", []string{"/webhook/timeoutSeconds", "30"}},
		{"an unknown mode", "certificates: {mode: certmanager}", []string{"/certificates/mode", "certManager"}},
		{"snake case", "sync: {role_arn: x}", []string{"/sync", "role_arn"}},
		{"a user for a role", "sync: {roleArn: 'arn:aws:iam::111122223333:user/sync'}", []string{"/sync/roleArn"}},
		{"a tag in the repository", "image: {repository: 'ghcr.io/ampbridge/ampbridge:v1'}", []string{"/image/repository"}},
		{"a digest without its algorithm", "image: {digest: 0123456789abcdef}", []string{"/image/digest"}},
		{"limits beside resources", "webhook: {resources: {memory: 64Mi}}", []string{"/webhook/resources", "memory"}},
		{"a policy field misspelt", "policy: {destnations: []}", []string{"/policy", "destnations"}},
		{"a policy field deep inside", "policy: {destinations: [{name: central, workspace: " +
			"'arn:aws:aps:eu-west-1:111122223333:workspace/ws-1', remoteWrite: {queueConfig: {maxShard: 5}}}]}",
			[]string{"/policy/destinations/0/remoteWrite/queueConfig", "maxShard"}},
		{"a grant for one name", "policy: {grants: [{namespaces: monitoring, serviceAccounts: [prometheus], destinations: " +
			"[central]}]}", []string{"/policy/grants/0/namespaces", "array"}},
		{"a workspace's id with a space", "policy: {destinations: [{name: a, workspace: 'arn:aws:aps:eu-west-1:111122223333:workspace/ws-0 1'}]}",
			[]string{"/policy/destinations/0/workspace"}},
		{"a workspace's id", "policy: {destinations: [{name: central, workspace: ws-0123}]}", []string{"/policy/destinations/0/workspace"}},
		{"an account that YAML takes for a number", "policy: {trust: {accounts: [{id: 111122223333}]}}",
			[]string{"/policy/trust/accounts/0/id", "string"}},
		{"a duration in words", "policy: {session: {duration: 6 hours}}", []string{"/policy/session/duration"}},
		{"a policy without destinations", "policy: {destinations: null}", []string{"/policy", "destinations"}},
		{"a policy file in place of values", "{apiVersion: ampbridge.io/v1alpha1, kind: Policy, cluster: {name: dev}}",
			[]string{"/cluster", "below policy: a policy file is the value of policy"}},
		{"grants at the top", "grants: [{namespaces: [monitoring], serviceAccounts: [a], destinations: [b]}]",
			[]string{"/grants", "below policy: a policy file is the value of policy"}},
		// What charts of other projects take, and what is easily written in its place.
		{"the replicas of other charts", "webhook: {replicaCount: 3}", []string{"/webhook", "replicaCount"}},
		{"a service account for both", "serviceAccount: {create: true}", []string{"serviceAccount"}},
		{"an image as text", "image: 'ghcr.io/ampbridge/ampbridge:v0.1.0'", []string{"/image'", "got string, want object"}},
		{"a tag that YAML takes for a number", "image: {tag: 0.1}", []string{"/image/tag", "got number, want string"}},
		{"Secrets by their names", "imagePullSecrets: [registry]", []string{"/imagePullSecrets/0", "got string, want object"}},
		{"one toleration", "webhook: {tolerations: {key: a, operator: Exists}}", []string{"/webhook/tolerations", "got object, want array"}},
		{"an annotation that YAML takes for a boolean", "sync: {podAnnotations: {example.com/scrape: true}}",
			[]string{"/sync/podAnnotations/example.com~1scrape", "got boolean, want string"}},
		{"a unit that Kubernetes does not know", "webhook: {resources: {limits: {memory: 128mb}}}",
			[]string{"/webhook/resources/limits/memory", "128mb", "Ki|Mi|Gi"}},
		{"a scheme in the registry", "global: {imageRegistry: 'https://registry.example.com'}",
			[]string{"/global/imageRegistry", "https://registry.example.com"}},
		{"arguments as text", "sync: {extraArgs: --trust-quota=4096}", []string{"/sync/extraArgs", "got string, want array"}},
		{"variables as a mapping", "webhook: {extraEnv: {HTTPS_PROXY: 'http://proxy:3128'}}",
			[]string{"/webhook/extraEnv", "got object, want array"}},
		{"a volume without a source", "webhook: {extraVolumes: [{name: ca}]}",
			[]string{"/webhook/extraVolumes/0", "missing property 'configMap'", "'secret'"}},
		{"a relative mount", "webhook: {extraVolumeMounts: [{name: ca, mountPath: etc/ca}]}",
			[]string{"/webhook/extraVolumeMounts/0/mountPath", "etc/ca"}},
		{"a schedule in words", "sync: {schedule: every 10 minutes}", []string{"/sync/schedule", "every 10 minutes", "hourly"}},
		{"a label with a space", "commonLabels: {team: my team}", []string{"/commonLabels/team", "my team"}},
		{"an address for a peer", "networkPolicy: {webhookFrom: [10.0.0.0/8]}", []string{"/networkPolicy/webhookFrom/0", "want object"}},
		{"a zone for a region", "sync: {region: eu-west-1a}", []string{"/sync/region", "eu-west-1a"}},
		{"a URL for a workspace's ARN", "policy: {destinations: [{name: a, workspace: " +
			"'https://aps-workspaces.eu-west-1.amazonaws.com/workspaces/ws-1'}]}", []string{"/policy/destinations/0/workspace", "arn:"}},
		{"a strategy without its type", "webhook: {strategy: {maxSurge: 1}}", []string{"/webhook/strategy", "maxSurge"}},
		{"a probe of the user's own", "webhook: {readinessProbe: {httpGet: {path: /}}}", []string{"/webhook/readinessProbe", "httpGet"}},
		{"a field of containers for pods", "webhook: {podSecurityContext: {allowPrivilegeEscalation: false}}",
			[]string{"/webhook/podSecurityContext", "allowPrivilegeEscalation"}},
		{"a profile as text", "sync: {securityContext: {seccompProfile: RuntimeDefault}}",
			[]string{"/sync/securityContext/seccompProfile", "want object"}},
		{"another case for the format", "sync: {logFormat: JSON}", []string{"/sync/logFormat", "'json', 'text'"}},
		{"another case for DNS", "webhook: {dnsPolicy: clusterFirst}", []string{"/webhook/dnsPolicy", "'ClusterFirst'"}},
		{"one object more", "extraObjects: {kind: ConfigMap}", []string{"/extraObjects", "got object, want array"}},
		{"an object without a name", "extraObjects: [{apiVersion: v1, kind: ConfigMap}]", []string{"/extraObjects/0", "'metadata'"}},
		{"a ConfigMap by its name alone", "policyConfigMap: own", []string{"/policyConfigMap", "got string, want object"}},
		{"a policy as text", "policy: 'cluster: {name: dev}'", []string{"/policy", "got string, want object"}},
		{"a namespace that cannot be", "namespaceOverride: Team_A", []string{"/namespaceOverride", "Team_A"}},
		{"a CA in base64", "webhook: {clientCA: {caBundle: LS0tLS1CRUdJTg==}}", []string{"/webhook/clientCA/caBundle", "BEGIN CERTIFICATE"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, stderr, err := helm(t, "template", release, chartDir, "-f", minimal, "-f", valuesFile(t, test.values))
			if err == nil {
				t.Fatal("accepted")
			}
			names(t, stderr, test.want...)
		})
	}
}

// What a schema cannot say is said by the templates.
func TestContradictions(t *testing.T) {
	const workspace = "policy.destinations[0].workspace=arn:aws:aps:"
	for _, test := range []struct {
		name string
		args []string
		want []string
	}{
		{"no policy", nil, []string{"policy is empty", "policy.cluster.name"}},
		{"a placeholder for a workspace", []string{"-f", minimal, "--set", workspace + "eu-west-1:111122223333:workspace/ws-new"},
			[]string{"policy.destinations[0].workspace: is ws-new, a placeholder for a new workspace", "ampbridge bootstrap"}},
		{"a numbered placeholder", []string{"-f", minimal, "--set", workspace + "eu-west-1:111122223333:workspace/ws-NEW-2"},
			[]string{"policy.destinations[0].workspace: is ws-NEW-2, a placeholder"}},
		{"a misspelt region", []string{"-f", minimal, "--set", workspace + "eu-centrl-1:111122223333:workspace/ws-0123"},
			[]string{"policy.destinations[0].workspace: ", `"eu-centrl-1" is not a region`, "aws amp list-workspaces"}},
		{"a misspelt region of STS", []string{"-f", minimal, "--set", "sync.region=eu-wset-1"},
			[]string{`sync.region: "eu-wset-1" is not a region`}},
		{"nobody keeps the AWS side", []string{"-f", minimal, "--set", "sync.enabled=false"},
			[]string{"sync.enabled", "policy.trust.manage: none"}},
		{"a certificate is promised", []string{"-f", minimal, "--set", "certificates.mode=provided"},
			[]string{"certificates.provided.secretName"}},
		{"a certificate that would not be used", []string{"-f", minimal, "--set", "certificates.provided.secretName=own"},
			[]string{"certificates.mode: provided"}},
		{"off, without a parent chart", []string{"-f", minimal, "--set", "enabled=false"}, []string{"enabled is false", "condition: " +
			"ampbridge.enabled"}},
		{"two things on one port", []string{"-f", minimal, "--set", "webhook.port=8080"},
			[]string{"webhook.metricsPort is 8080", "so is webhook.port"}},
		{"one port for metrics and health", []string{"-f", minimal, "--set", "webhook.metricsPort=9090", "--set", "webhook.healthPort=9090"},
			[]string{"webhook.healthPort is 9090", "so is webhook.metricsPort"}},
		{"the kubelet's port", []string{"-f", minimal, "--set", "webhook.hostNetwork=true", "--set", "webhook.port=10250"},
			[]string{"webhook.port is 10250", "the kubelet", "webhook.hostNetwork"}},
		{"kube-proxy's port", []string{"-f", minimal, "--set", "webhook.hostNetwork=true", "--set", "webhook.healthPort=10256"},
			[]string{"webhook.healthPort is 10256", "kube-proxy"}},
		{"a selector's label for all", []string{"-f", minimal, "--set", `commonLabels.app\.kubernetes\.io/name=x`},
			[]string{"commonLabels", "app.kubernetes.io/name", "nameOverride"}},
		{"a selector's label for pods", []string{"-f", minimal, "--set", `sync.podLabels.app\.kubernetes\.io/component=x`},
			[]string{"sync.podLabels", "app.kubernetes.io/component", "remove it"}},
		{"a variable twice", []string{"-f", minimal, "--set", "webhook.extraEnv[0].name=A,webhook.extraEnv[1].name=A"},
			[]string{"webhook.extraEnv[1].name", `"A" is listed twice`}},
		{"a Secret twice", []string{"-f", minimal, "--set", "imagePullSecrets[0].name=a,imagePullSecrets[1].name=a"},
			[]string{"imagePullSecrets[1].name", `"a" is listed twice`}},
		{"a volume of the chart's", []string{"-f", minimal, "--set", "sync.extraVolumes[0].name=policy," +
			"sync.extraVolumes[0].emptyDir.medium=Memory"},
			[]string{"sync.extraVolumes[0].name", `the chart uses "policy" itself`}},
		{"a mount of the chart's", []string{"-f", minimal, "--set", "sync.extraVolumeMounts[0].name=a," +
			"sync.extraVolumeMounts[0].mountPath=/etc/ampbridge"},
			[]string{"sync.extraVolumeMounts[0].mountPath", `"/etc/ampbridge"`}},
		{"two policies", []string{"-f", minimal, "--set", "policyConfigMap.existing=own"},
			[]string{"policyConfigMap.existing", "exclude each other"}},
		{"a policy that the chart cannot read", []string{"--set", "policyConfigMap.existing=own"}, []string{"sync.region", "ConfigMap own"}},
		{"repair of a policy that the chart can read", []string{"-f", minimal, "--set", "policyConfigMap.auditRepair=evict"},
			[]string{"policyConfigMap.auditRepair", "policy.audit.repair: evict"}},
		{"no service account", []string{"-f", minimal, "--set", "webhook.serviceAccount.create=false"},
			[]string{"webhook.serviceAccount.name"}},
		{"one service account for both", []string{"-f", minimal, "--set", "webhook.serviceAccount.name=a,sync.serviceAccount.name=a"},
			[]string{"webhook.serviceAccount.name", "sync.serviceAccount.name", "both a"}},
		{"a hook for all", []string{"-f", minimal, "--set", `commonAnnotations.helm\.sh/hook=pre-install`},
			[]string{"commonAnnotations", "helm.sh/hook"}},
		{"the label that commands look for", []string{"-f", minimal, "--set", `commonLabels.ampbridge\.io/chart=x`},
			[]string{"commonLabels", "ampbridge.io/chart"}},
		{"names without a CA", []string{"-f", minimal, "--set", "webhook.clientCA.commonNames={a}"}, []string{"webhook.clientCA.caBundle"}},
		{"a volume of the webhook's", []string{"-f", minimal, "--set", "webhook.extraVolumes[0].name=tls," +
			"webhook.extraVolumes[0].emptyDir.medium=Memory"},
			[]string{"webhook.extraVolumes[0].name", `"tls"`}},
		{"a right without its guard", []string{"-f", minimal, "--set", "policy.audit.repair=evict,admissionPolicies.enabled=false"},
			[]string{"policy.audit.repair is evict", "admissionPolicies.enabled"}},
		{"an old Kubernetes", []string{"-f", minimal, "--kube-version", "1.29.9"}, []string{"1.30", "1.29.9"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, stderr, err := helm(t, append([]string{"template", release, chartDir}, test.args...)...)
			if err == nil {
				t.Fatal("accepted")
			}
			names(t, stderr, test.want...)
		})
	}
}

func names(t *testing.T, message string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(message, part) {
			t.Errorf("the message does not name %q:\n%s", part, message)
		}
	}
}

// The auditor reads sidecars, and its NetworkPolicy lets it, unless that is turned off or
// there is no auditor.
func TestSidecarStatusCanBeTurnedOff(t *testing.T) {
	for _, c := range []struct {
		name   string
		args   []string
		off    bool
		egress bool
	}{
		{"by default", nil, false, true},
		{"turned off", []string{"--set", "sync.auditor.sidecarStatus=false"}, true, false},
		{"no auditor", []string{"--set", "sync.auditor.enabled=false"}, false, false},
		{"a CronJob", []string{"--set", "sync.mode=cronJob"}, false, false},
	} {
		all := render(t, append([]string{"-f", minimal, "--set", "networkPolicy.enabled=true"}, c.args...)...)
		text, err := yaml.Marshal(all.get(t, "NetworkPolicy", "ampbridge-sync").Object)
		testkit.Must(t, err)
		if got := strings.Contains(string(text), "port: 19095"); got != c.egress {
			t.Errorf("%s: the NetworkPolicy lets sync out to sidecars: %t", c.name, got)
		}
		if workload := all.find("Deployment", "ampbridge-sync"); workload != nil {
			if got := slices.Contains(podOf(t, workload).Containers[0].Args, "--no-sidecar-status"); got != c.off {
				t.Errorf("%s: --no-sidecar-status: %t", c.name, got)
			}
		}
	}
}
