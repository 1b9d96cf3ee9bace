package inject

import (
	stdjson "encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp/cmpopts"
	"gomodules.xyz/jsonpatch/v2"
	corev1 "k8s.io/api/core/v1"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/test/testkit"
)

const (
	credentials = "AWS_SHARED_CREDENTIALS_FILE=/var/run/secrets/ampbridge.io/credentials/credentials"
	role        = "AWS_ROLE_ARN=arn:aws:iam::111122223333:role/ampbridge/dev/ampbridge.dev.central " +
		"AWS_WEB_IDENTITY_TOKEN_FILE=/var/run/secrets/ampbridge.io/token/token"
	region   = "AWS_REGION=eu-west-1 AWS_DEFAULT_REGION=eu-west-1"
	regional = "AWS_STS_REGIONAL_ENDPOINTS=regional"
	all      = credentials + " " + role + " " + region + " " + regional
)

// What is added to the environment of a container depends on what it has.
func TestEnvironment(t *testing.T) {
	for _, c := range []struct {
		name      string
		container string // members of the container
		namespace string // of the grant; monitoring by default
		account   map[string]string
		sidecar   bool   // the grant's environment is sidecar; container by default
		elsewhere string // members of another container
		args      string // of Prometheus; --config.auto-reload by default
		want      string
	}{
		{name: "nothing of its own: everything", want: all},
		{name: "variables of its own stay", container: "env: [{name: A, value: b}]", want: all},
		{name: "environment: sidecar", sidecar: true, want: credentials},
		{name: "two destinations: no single identity", namespace: "pair", want: credentials},

		{name: "static keys", container: "env: [{name: AWS_ACCESS_KEY_ID, value: x}, {name: AWS_SECRET_ACCESS_KEY, valueFrom: " +
			"{secretKeyRef: {name: s, key: k}}}]", want: credentials},
		{name: "a profile: the relay", container: "env: [{name: AWS_PROFILE, value: x}]"},
		{name: "half an identity: not the other half", container: "env: [{name: AWS_ROLE_ARN, value: x}]", want: credentials},
		{name: "the other half", container: "env: [{name: AWS_WEB_IDENTITY_TOKEN_FILE, value: x}]", want: credentials},
		{name: "EKS Pod Identity", container: "env: [{name: AWS_CONTAINER_CREDENTIALS_FULL_URI, value: x}]", want: credentials},
		{name: "the EKS webhook's volume", container: "volumeMounts: [{name: aws-iam-token, mountPath: " +
			"/var/run/secrets/eks.amazonaws.com/serviceaccount}]", want: credentials},
		{name: "the EKS agent's volume", container: "volumeMounts: [{name: eks-pod-identity-token, mountPath: " +
			"/var/run/secrets/pods.eks.amazonaws.com/serviceaccount}]", want: credentials},
		{name: "envFrom could set one: the relay", container: "envFrom: [{configMapRef: {name: aws}}]"},
		{name: "Azure's identity", container: "env: [{name: AZURE_CLIENT_ID, value: x}]", want: credentials},
		{name: "the role that is ours, by hand", container: "env: [{name: AWS_ROLE_ARN, value: " +
			"'arn:aws:iam::111122223333:role/ampbridge/dev/ampbridge.dev.central'}]", want: credentials},
		{name: "an identity of another container", elsewhere: "env: [{name: AWS_CONTAINER_CREDENTIALS_FULL_URI, value: x}]", want: credentials},
		{name: "envFrom of another container", elsewhere: "envFrom: [{secretRef: {name: aws}}]", want: credentials},
		{name: "files of another container", elsewhere: "volumeMounts: [{name: x, mountPath: /root/.aws}]", want: credentials},
		{name: "another container without any", elsewhere: "env: [{name: A, value: x}]", want: all},
		{name: "a role on the service account", account: map[string]string{policy.AnnotationIRSA: "arn:aws:iam::111122223333:role/own"},
			want: credentials},
		{name: "ours on the service account", account: map[string]string{policy.AnnotationIRSA: "arn:aws:iam::111122223333:role/" +
			"ampbridge/dev/ampbridge.dev.central"}, want: all},

		{name: "a region of its own", container: "env: [{name: AWS_REGION, value: us-east-1}]", want: credentials + " " + role + " " + regional},
		{name: "a default region of its own", container: "env: [{name: AWS_DEFAULT_REGION, value: us-east-1}]",
			want: credentials + " " + role + " " + regional},
		{name: "the STS setting of its own", container: "env: [{name: AWS_STS_REGIONAL_ENDPOINTS, value: legacy}]",
			want: credentials + " " + role + " " + region},

		{name: "a credentials file of its own: the relay", container: "env: [{name: AWS_SHARED_CREDENTIALS_FILE, value: /x}]"},
		{name: "a config file of its own: the relay", container: "env: [{name: AWS_CONFIG_FILE, valueFrom: {fieldRef: {fieldPath: " +
			"metadata.name}}}]"},
		{name: "a volume at home: the relay", container: "volumeMounts: [{name: x, mountPath: /home/.aws/credentials, subPath: credentials}]"},
		{name: "nothing reloads: the relay, with the identity", args: "--web.enable-lifecycle", want: role + " " + region + " " + regional},
		{name: "nothing reloads, environment: sidecar", args: "--web.enable-lifecycle", sidecar: true},
		{name: "nothing reloads, and a region of its own", args: "--web.enable-lifecycle",
			container: "env: [{name: AWS_REGION, value: us-east-1}]", want: role + " " + regional},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := options(t)
			o.ServiceAccountAnnotations = c.account
			if c.namespace == "" {
				c.namespace = "monitoring"
			}
			d := granted(t, o.Policy, c.namespace)
			if d.Environment != policy.EnvironmentSidecar {
				t.Errorf("environment %s by default", d.Environment)
			}
			if !c.sidecar {
				d.Environment = policy.EnvironmentContainer
			}
			data := awsPod(t, c.container, c.elsewhere)
			if c.args != "" {
				data = []byte(strings.Replace(string(data), "--config.auto-reload", c.args, 1))
			}
			ops, d := Inject(decode(t, data), d, o)
			if !d.Inject {
				t.Fatal(d.Reason, d.Warning)
			}
			var before, after corev1.Pod
			for _, pod := range []struct {
				data []byte
				into *corev1.Pod
			}{{data, &before}, {apply(t, data, ops), &after}} {
				testkit.Must(t, json.Unmarshal(pod.data, pod.into))
			}
			had, has := before.Spec.Containers[0].Env, after.Spec.Containers[0].Env
			testkit.Equal(t, "its own variables", had, has[:len(had)], cmpopts.EquateEmpty())
			var added []string
			for _, e := range has[len(had):] {
				added = append(added, e.Name+"="+e.Value)
			}
			testkit.Equal(t, "added", strings.Fields(c.want), added, cmpopts.EquateEmpty())
			standsInSidecar := after.Spec.InitContainers[0].Env[3:]
			if c.namespace == "pair" {
				if len(standsInSidecar) > 0 {
					t.Errorf("the sidecar of two destinations has %v", standsInSidecar)
				}
			} else if got := listed(standsInSidecar); got != role+" "+region+" "+regional {
				t.Errorf("the sidecar has %s", got)
			}
			token := slices.ContainsFunc(
				after.Spec.Containers[0].VolumeMounts,
				func(m corev1.VolumeMount) bool { return m.Name == sidecarconfig.VolumeToken },
			)
			if wanted := strings.Contains(c.want, role); token != wanted {
				t.Errorf("the token is mounted: %t, want %t", token, wanted)
			}
		})
	}
}

// A pod gets its own service account's role, in its environment and in the sidecar config. It is
// outdated if it was given another role.
func TestPodUsesTheRoleOfItsServiceAccount(t *testing.T) {
	data := podOf(t, `
containers: [{name: prometheus, image: "prom/prometheus:v3.15.0", args: [--config.file=/etc/p/p.yml, --config.auto-reload],
  volumeMounts: [{name: c, mountPath: /etc/p}]}]
volumes: [{name: c, configMap: {name: c}}]`)
	const role = "arn:aws:iam::111122223333:role/ampbridge/dev/ampbridge.dev.central"
	o := options(t)
	before := injected(t, data, o)
	o.Policy.Trust.RoleScope = policy.RoleScopeServiceAccount
	after := injected(t, data, o)
	for text, want := range map[string]string{string(before): role, string(after): role + ".monitoring.prometheus-x"} {
		if n := strings.Count(text, want+`"`) + strings.Count(text, want+`\"`); n != 2 || strings.Count(text, role) != 2 {
			t.Errorf("%d times %s:\n%s", n, want, text)
		}
	}
	carried, today, err := Mark(decode(t, before), granted(t, o.Policy, "monitoring").Entitlement, o.Policy)
	if err != nil || carried.Policy == today.Policy {
		t.Errorf("a pod with the role of all is not outdated: %+v, %v", carried, err)
	}
}

func TestMountConflict(t *testing.T) {
	for _, c := range []struct {
		name, container, says string
	}{
		{"a mount over ampbridge's directory", "volumeMounts: [{name: x, mountPath: /var/run}]", "/var/run"},
		{"a mount at ampbridge's directory", "volumeMounts: [{name: x, mountPath: /var/run/secrets/ampbridge.io/token}]",
			"ampbridge.io/token"},
		{"a mount inside ampbridge's directory", "volumeMounts: [{name: x, mountPath: /var/run/secrets/ampbridge.io/credentials/x}]",
			"credentials/x"},
	} {
		if d := refusal(t, awsPod(t, c.container, ""), options(t)); d.Reason != MountConflict || !strings.Contains(d.Warning, c.says) {
			t.Errorf("%s: %s: %q; want it to say %q", c.name, d.Reason, d.Warning, c.says)
		}
	}
}

// The token of Azure's webhook, which runs before this webhook, or adds it when it is called again.
func TestAzureToken(t *testing.T) {
	o := options(t)
	o.Policy.Token.Source = policy.TokenSourceAzure
	pod := func(labels, mounts, volumes string) []byte {
		data := podOf(t, `
containers:
- {name: prometheus, image: "prom/prometheus:v3.15.0", args: [--config.file=/c/p.yml], volumeMounts: [{name: c, mountPath: /c}`+mounts+`]}
volumes: [{name: c, configMap: {name: c}}`+volumes+`]`)
		return []byte(strings.Replace(string(data), `"metadata":{`, `"metadata":{"labels":{`+labels+`},`, 1))
	}
	const label = `"azure.workload.identity/use":"true"`
	const mount, volume = ", {name: azure-identity-token, mountPath: /var/run/secrets/azure/tokens, readOnly: true}",
		", {name: azure-identity-token, projected: {sources: []}}"
	if d := refusal(
		t,
		pod("", "", ""),
		o,
	); d.Reason != NoAzureToken ||
		!strings.Contains(d.Warning, `azure.workload.identity/use: "true"`) {
		t.Errorf("without the label: %s: %s", d.Reason, d.Warning)
	}
	if d := refusal(t, pod(label, "", ""), o); d.Reason != NoAzureToken || !strings.Contains(d.Warning, "checked again") {
		t.Errorf("before Azure's webhook: %s: %s", d.Reason, d.Warning)
	}
	for name, mounts := range map[string]string{"mounted by Azure's webhook": mount, "a container that it skips": ""} {
		prometheus := strings.Count(mounts, "name:") // Prometheus needs none
		after := decode(t, injected(t, pod(label, mounts, volume), o))
		if after.volume(sidecarconfig.VolumeToken) >= 0 {
			t.Errorf("%s: ampbridge added a token volume", name)
		}
		for c, want := range map[*Container]int{&after.Spec.InitContainers[0]: 1, &after.Spec.Containers[0]: prometheus} {
			n := 0
			for _, m := range c.VolumeMounts {
				if m.Name == "azure-identity-token" && m.MountPath == "/var/run/secrets/azure/tokens" {
					n++
				}
			}
			if n != want {
				t.Errorf("%s: container %s mounts Azure's token %d times, want %d", name, c.Name, n, want)
			}
		}
		a, err := sidecarconfig.Decode(encodedConfig(after))
		if err != nil || a.Token != "/var/run/secrets/azure/tokens/azure-identity-token" {
			t.Errorf("%s: token %s, %v", name, a.Token, err)
		}
		if ops, d := Inject(after, granted(t, o.Policy, "monitoring"), o); len(ops) > 0 || d.Reason != AlreadyInjected {
			t.Errorf("%s: again: %d operations, %s", name, len(ops), d.Reason)
		}
	}
}

// intoContainer sets `environment: container` in every grant.
func intoContainer(p *policy.Policy) {
	for i := range p.Grants {
		p.Grants[i].Environment = policy.EnvironmentContainer
	}
}

// listed returns variables as NAME=value, separated by spaces.
func listed(env []corev1.EnvVar) string {
	var all []string
	for _, e := range env {
		all = append(all, e.Name+"="+e.Value)
	}
	return strings.Join(all, " ")
}

// Other webhooks run after this one, and the API server calls this one again. If the pod then has
// another identity, ampbridge's variables are removed, and the rest of the injection stays.
func TestVariablesAreTakenBackWhenAnIdentityAppears(t *testing.T) {
	env := func(container int, name, value string) jsonpatch.Operation {
		return adding(pointer("spec", "containers", container, "env", "-"), EnvVar{Name: name, Value: value})
	}
	for _, c := range []struct {
		name    string
		args    string // of Prometheus; --config.auto-reload by default
		foreign []jsonpatch.Operation
		account map[string]string
		own     string // the container's own variables
		want    string // of the container afterwards, without its own and foreign variables
		token   bool   // whether it still mounts the token
	}{
		{name: "nothing", want: all, token: true},
		{name: "a variable without an identity", foreign: []jsonpatch.Operation{env(0, "A", "b")}, want: all, token: true},
		{name: "EKS Pod Identity", foreign: []jsonpatch.Operation{env(0, "AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://169.254.170.23/"+
			"v1/credentials"), env(0, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/x")}, want: credentials},
		{name: "IRSA of the pod's own role", account: map[string]string{policy.AnnotationIRSA: "arn:aws:iam::111122223333:role/own"},
			want: credentials},
		{name: "IRSA's variables, a second time", foreign: []jsonpatch.Operation{env(0, "AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/own"),
			env(0, "AWS_WEB_IDENTITY_TOKEN_FILE", "/x")}, want: credentials},
		{name: "Azure's variables", foreign: []jsonpatch.Operation{env(0, "AZURE_CLIENT_ID", "x"), env(0, "AZURE_FEDERATED_TOKEN_FILE", "/x")},
			want: credentials},
		{name: "envFrom: the relay instead", foreign: []jsonpatch.Operation{adding("/spec/containers/0/envFrom",
			[]any{map[string]any{"secretRef": map[string]any{"name": "aws"}}})}, want: ""},
		{name: "in another container", foreign: []jsonpatch.Operation{adding("/spec/containers/1/env",
			[]EnvVar{{Name: "AWS_ACCESS_KEY_ID", Value: "x"}})}, want: credentials},
		{name: "a region of its own stays", own: "{name: AWS_REGION, value: eu-west-1}",
			foreign: []jsonpatch.Operation{env(0, "AWS_CONTAINER_CREDENTIALS_FULL_URI", "x")}, want: credentials},
		{name: "a profile: the relay instead", foreign: []jsonpatch.Operation{env(0, "AWS_PROFILE", "x")}, want: ""},
		{name: "the EKS webhook's volume", foreign: []jsonpatch.Operation{adding("/spec/containers/0/volumeMounts/-",
			VolumeMount{Name: "aws-iam-token", MountPath: "/t"})}, want: credentials},
		{name: "of a pod with the relay", args: "--web.enable-lifecycle", foreign: []jsonpatch.Operation{env(0,
			"AWS_CONTAINER_CREDENTIALS_FULL_URI", "x")}, want: ""},
		{name: "only in the sidecar", foreign: []jsonpatch.Operation{adding("/spec/initContainers/0/env/-",
			EnvVar{Name: "AWS_CONTAINER_CREDENTIALS_FULL_URI", Value: "x"})}, want: all, token: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := options(t)
			intoContainer(o.Policy)
			args := "--config.auto-reload"
			if c.args != "" {
				args = c.args
			}
			once := injected(t, podOf(t, `
containers:
- {name: prometheus, image: "prom/prometheus:v3.15.0", args: [--config.file=/c/p.yml, `+args+`], env: [`+c.own+
				`], volumeMounts: [{name: c, mountPath: /c}]}
- {name: other}
volumes: [{name: c, configMap: {name: c}}]`), o)
			data := apply(t, once, c.foreign)
			o.ServiceAccountAnnotations = c.account
			ops, d := Inject(decode(t, data), granted(t, o.Policy, "monitoring"), o)
			if d.Reason != AlreadyInjected || !d.Inject || d.Warning != "" {
				t.Fatalf("%+v", d)
			}
			data = apply(t, data, ops)
			var after corev1.Pod
			testkit.Must(t, json.Unmarshal(data, &after))
			var left []corev1.EnvVar
			for _, e := range after.Spec.Containers[0].Env {
				foreign := slices.ContainsFunc(c.foreign, func(op jsonpatch.Operation) bool {
					var v EnvVar
					return json.Unmarshal(op.Value.(stdjson.RawMessage), &v) == nil && v.Name == e.Name && v.Value == e.Value
				})
				if !foreign && !strings.Contains(c.own, e.Name) {
					left = append(left, e)
				}
			}
			testkit.Equal(t, "the container's variables", c.want, listed(left))
			if len(after.Spec.Containers[0].Env) < len(left)+strings.Count(c.own, "name:") {
				t.Errorf("one of its own is gone: %v", after.Spec.Containers[0].Env)
			}
			if token := slices.ContainsFunc(
				after.Spec.Containers[0].VolumeMounts,
				func(m corev1.VolumeMount) bool { return m.Name == sidecarconfig.VolumeToken },
			); token != c.token {
				t.Errorf("the token is mounted: %t", token)
			}
			if again, d := Inject(decode(t, data), granted(t, o.Policy, "monitoring"), o); len(again) > 0 || d.Reason != AlreadyInjected {
				t.Errorf("again: %v, %s", again, d.Reason)
			}
		})
	}
}

// awsPod returns a pod that can be injected. Its Prometheus container also has members, and another
// container has others.
func awsPod(t *testing.T, members, others string) []byte {
	t.Helper()
	mounts := "{name: c, mountPath: /c}"
	if before, after, found := strings.Cut(members, "volumeMounts: ["); found {
		members, mounts = before, mounts+", "+strings.TrimSuffix(after, "]")
	}
	return podOf(t, `
containers:
- {name: prometheus, image: "prom/prometheus:v3.15.0", args: [--config.file=/c/p.yml, --config.auto-reload],
  volumeMounts: [`+mounts+`], `+members+`}
- {name: other, `+others+`}
volumes: [{name: c, configMap: {name: c}}, {name: x, secret: {secretName: x}}]`)
}
