package inject

import (
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	corev1 "k8s.io/api/core/v1"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// writerPod has two containers, a native sidecar and an ordinary init container.
const writerPod = `
metadata:
  name: otel-0
  namespace: monitoring
  annotations: {ampbridge.io/container: "NAMES"}
spec:
  serviceAccountName: ACCOUNT
  initContainers:
  - {name: setup, image: setup}
  - {name: agent, image: vmagent, restartPolicy: Always, env: [{name: A, value: b}]}
  containers:
  - {name: otel, image: otel/collector, env: [{name: AWS_REGION, value: us-east-1}]}
  - name: other
    image: other
    env: [{name: AWS_ACCESS_KEY_ID, value: AKIA}]
    envFrom: [{secretRef: {name: x}}]
`

// namedCase injects writerPod with the grants of its service account.
func namedCase(t *testing.T, account, names string, change func(*corev1.Pod)) (data, got []byte, d policy.Decision, o Options) {
	t.Helper()
	manifest := strings.NewReplacer("NAMES", names, "ACCOUNT", account).Replace(writerPod)
	typed := typedPod(t, fromYAML(t, manifest))
	if change != nil {
		change(typed)
	}
	data, err := json.Marshal(typed)
	testkit.Must(t, err)
	p, err := policy.Parse(readFile(t, "modes.yaml"))
	testkit.Must(t, err)
	o = Options{Policy: p, Image: testImage}
	got, d = injectNamedOnce(t, data, o)
	return data, got, d, o
}

func injectNamedOnce(t *testing.T, data []byte, o Options) ([]byte, policy.Decision) {
	t.Helper()
	pod := decode(t, data)
	_, prometheus := Prometheus(pod)
	d := o.Policy.Decide(policy.Request{
		Namespace: "monitoring", Injection: policy.InjectionEnabled, ServiceAccount: pod.Spec.ServiceAccountName,
		Prometheus: prometheus, PodAnnotations: pod.Metadata.Annotations, ServiceAccountAnnotations: o.ServiceAccountAnnotations,
	})
	if !d.Inject {
		return data, d
	}
	operations, d := Inject(pod, d, o)
	return apply(t, data, operations), d
}

func typedPod(t *testing.T, data []byte) *corev1.Pod {
	t.Helper()
	var pod corev1.Pod
	testkit.Must(t, json.Unmarshal(data, &pod))
	return &pod
}

func envOf(c corev1.Container) map[string]string {
	env := map[string]string{}
	for _, v := range c.Env {
		env[v.Name] = v.Value
	}
	return env
}

func TestIdentityGivesTokenAndEnvironmentAndNothingElse(t *testing.T) {
	data, got, d, o := namedCase(t, "identity", "otel, agent", nil)
	if !d.Inject || d.Reason != policy.Granted || d.Warning != "" {
		t.Fatalf("%+v", d)
	}
	before, after := typedPod(t, data), typedPod(t, got)
	const role = "arn:aws:iam::111122223333:role/ampbridge/dev/ampbridge.dev.central"
	agent, otel := after.Spec.InitContainers[1], after.Spec.Containers[0]
	for name, want := range map[string]string{
		"A": "b", "AWS_ROLE_ARN": role, "AWS_WEB_IDENTITY_TOKEN_FILE": sidecarconfig.TokenDir + "/token", "AWS_REGION": "eu-west-1",
		"AWS_DEFAULT_REGION": "eu-west-1", "AWS_STS_REGIONAL_ENDPOINTS": "regional",
	} {
		if envOf(agent)[name] != want {
			t.Errorf("agent: %s is %q, want %q", name, envOf(agent)[name], want)
		}
	}
	// The container's own region stays, and no other is added.
	if env := envOf(otel); env["AWS_REGION"] != "us-east-1" || env["AWS_DEFAULT_REGION"] != "" || env["AWS_ROLE_ARN"] != role {
		t.Errorf("otel: %v", env)
	}
	for _, c := range []corev1.Container{agent, otel} {
		if len(c.VolumeMounts) != 1 || c.VolumeMounts[0].MountPath != sidecarconfig.TokenDir || !c.VolumeMounts[0].ReadOnly {
			t.Errorf("%s: mounts %+v", c.Name, c.VolumeMounts)
		}
	}
	// Without these additions the pod is unchanged.
	after.Spec.InitContainers[1].Env, after.Spec.InitContainers[1].VolumeMounts = before.Spec.InitContainers[1].Env, nil
	after.Spec.Containers[0].Env, after.Spec.Containers[0].VolumeMounts = before.Spec.Containers[0].Env, nil
	if len(after.Spec.Volumes) != 1 || after.Spec.Volumes[0].Projected.Sources[0].ServiceAccountToken.Audience != "sts.amazonaws.com" {
		t.Errorf("volumes %+v", after.Spec.Volumes)
	}
	after.Spec.Volumes = before.Spec.Volumes
	delete(after.Annotations, AnnotationInjected)
	testkit.Equal(t, "the other parts", before, after)
	if again, d := injectNamedOnce(t, got, o); d.Reason != AlreadyInjected || string(again) != string(got) {
		t.Errorf("again: %s", d.Reason)
	}
}

// A second role needs a configuration file: a downward-API item with an annotation.
func TestIdentityWithASecondRole(t *testing.T) {
	_, got, d, _ := namedCase(t, "chained", "agent", nil)
	if !d.Inject {
		t.Fatalf("%+v", d)
	}
	pod := typedPod(t, got)
	env := envOf(pod.Spec.InitContainers[1])
	if env["AWS_CONFIG_FILE"] != awsConfigFile || env["AWS_ROLE_ARN"] != "" || env["AWS_WEB_IDENTITY_TOKEN_FILE"] != "" ||
		env["AWS_ENDPOINT_URL_STS"] != "https://sts.eu-west-1.api.aws" {
		t.Errorf("variables %v", env)
	}
	config := pod.Annotations[AnnotationAWSConfig]
	for _, want := range []string{
		"role_arn = arn:aws:iam::555566667777:role/writer\nsource_profile = ampbridge\nexternal_id = dev/writer",
		"role_arn = arn:aws:iam::111122223333:role/ampbridge/dev/ampbridge.dev.chained\nweb_identity_token_file = " + sidecarconfig.TokenDir,
	} {
		if !strings.Contains(config, want) {
			t.Errorf("the configuration lacks %q:\n%s", want, config)
		}
	}
	i := slices.IndexFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.DownwardAPI != nil })
	if i < 0 || pod.Spec.Volumes[i].DownwardAPI.Items[0].FieldRef.FieldPath != "metadata.annotations['ampbridge.io/aws-config']" {
		t.Errorf("volumes %+v", pod.Spec.Volumes)
	}
	for _, m := range pod.Spec.InitContainers[1].VolumeMounts {
		if !m.ReadOnly {
			t.Errorf("%s can be written to", m.MountPath)
		}
	}
}

func TestNamedContainersAreRefusedWithTheFix(t *testing.T) {
	env := func(name string) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Spec.Containers[0].Env = []corev1.EnvVar{{Name: name, Value: "x"}} }
	}
	annotate := func(name, value string) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Annotations[name] = value }
	}
	for _, row := range []struct {
		name, account, names string
		change               func(*corev1.Pod)
		reason               policy.Reason
		says                 string
	}{
		{"role", "identity", "otel", env("AWS_ROLE_ARN"), ForeignIdentity, "container otel sets AWS_ROLE_ARN"},
		{"keys", "identity", "otel", env("AWS_ACCESS_KEY_ID"), ForeignIdentity, "AWS_ACCESS_KEY_ID"},
		{"profile", "identity", "otel", env("AWS_PROFILE"), ForeignIdentity, "AWS_PROFILE"},
		{"Pod Identity", "identity", "otel", env("AWS_CONTAINER_CREDENTIALS_FULL_URI"), ForeignIdentity, "AWS_CONTAINER"},
		{"envFrom", "identity", "otel,other", func(p *corev1.Pod) { p.Spec.Containers[1].Env = nil }, ForeignIdentity, "envFrom"},
		{"EKS volume", "identity", "otel", func(p *corev1.Pod) {
			p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "eks-pod-identity-token"})
		}, ForeignIdentity, "eks-pod-identity-token"},
		{"files", "identity", "otel", func(p *corev1.Pod) {
			p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "x", MountPath: "/root/.aws"}}
		}, ForeignIdentity, "~/.aws"},
		{"no such container", "identity", "oteel", nil, NoSuchContainer, `write one of otel, other`},
		{"init container", "relay", "setup", nil, NoSuchContainer, `the init container "setup"`},
		{"empty name", "identity", "otel,", nil, NoSuchContainer, "empty name"},
		{"empty list", "relay", "", nil, policy.InvalidAnnotation, "is empty: write NAME"},
		{"twice", "relay", "otel,otel", nil, NoSuchContainer, "twice"},
		{"several destinations", "both", "otel", nil, policy.AmbiguousDestination, "central, backup: name one"},
		{"unknown destination", "both", "otel", annotate("ampbridge.io/destination", "centrall"), policy.UnknownDestination, "write one of"},
		{"another mode", "identity", "otel", annotate("ampbridge.io/mode", "relay"), policy.InvalidAnnotation, "have mode identity"},
		{"unknown mode", "identity", "otel", annotate("ampbridge.io/mode", "proxy"), policy.InvalidAnnotation, "write prometheus, identity"},
		{"delivery", "relay", "otel", annotate("ampbridge.io/delivery", "sigv4"), policy.InvalidAnnotation, "for mode prometheus"},
		{"host network", "relay", "otel", func(p *corev1.Pod) { p.Spec.HostNetwork = true }, HostNetwork, "hostNetwork"},
		{"variable", "relay", "otel", env("AMPBRIDGE_REMOTE_WRITE_URL"), VariableTaken, "remove it"},
		{"mount", "identity", "otel", func(p *corev1.Pod) {
			p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "x", MountPath: "/var/run/secrets"}}
		}, MountConflict, "/var/run/secrets"},
		{"own volume", "identity", "otel", func(p *corev1.Pod) {
			p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: sidecarconfig.VolumeToken})
		}, PartlyInjected, sidecarconfig.VolumeToken},
	} {
		t.Run(row.name, func(t *testing.T) {
			data, got, d, _ := namedCase(t, row.account, row.names, row.change)
			if d.Inject || d.Reason != row.reason || !strings.Contains(d.Warning, row.says) || len(d.Warning) > 256 {
				t.Errorf("%s: %s", d.Reason, d.Warning)
			}
			if string(got) != string(data) {
				t.Error("the pod is changed")
			}
		})
	}
}

// The identity of a container matters only if it is named. Other containers keep what they have.
func TestAnotherContainersIdentityStays(t *testing.T) {
	_, got, d, _ := namedCase(t, "identity", "otel", nil)
	if env := envOf(typedPod(t, got).Spec.Containers[1]); !d.Inject || len(env) != 1 || env["AWS_ACCESS_KEY_ID"] != "AKIA" {
		t.Errorf("%+v %v", d, env)
	}
}

// EKS's webhooks run after ampbridge's, so the injection is undone.
func TestIdentityIsTakenBack(t *testing.T) {
	data, got, _, o := namedCase(t, "identity", "otel", nil)
	pod := typedPod(t, got)
	c := &pod.Spec.Containers[0]
	c.Env = append(c.Env, corev1.EnvVar{Name: "AWS_CONTAINER_CREDENTIALS_FULL_URI", Value: "http://x"})
	changed, err := json.Marshal(pod)
	testkit.Must(t, err)
	left, d := injectNamedOnce(t, changed, o)
	after, before := typedPod(t, left), typedPod(t, data)
	if d.Inject || d.Reason != ForeignIdentity || !strings.Contains(d.Warning, "is undone") {
		t.Errorf("%s: %s", d.Reason, d.Warning)
	}
	env := envOf(after.Spec.Containers[0])
	if len(env) != 2 || len(after.Spec.Volumes) != 0 || len(after.Annotations) != len(before.Annotations) {
		t.Errorf("left: %v, volumes %v, annotations %v", env, after.Spec.Volumes, after.Annotations)
	}
	// What another webhook removes is added again.
	pod = typedPod(t, got)
	pod.Spec.Containers[0].VolumeMounts = nil
	if changed, err = json.Marshal(pod); err != nil {
		t.Fatal(err)
	}
	repaired, d := injectNamedOnce(t, changed, o)
	if c := typedPod(t, repaired).Spec.Containers[0]; d.Reason != AlreadyInjected || len(c.VolumeMounts) != 1 || len(c.Env) != 4 {
		t.Errorf("%s: %+v", d.Reason, c)
	}
}

func TestRelayGivesAddressAndPassword(t *testing.T) {
	_, got, d, o := namedCase(t, "relay", "otel,agent", nil)
	if !d.Inject {
		t.Fatalf("%+v", d)
	}
	pod := typedPod(t, got)
	sidecar := pod.Spec.InitContainers[0]
	if sidecar.Name != sidecarconfig.ContainerName || len(sidecar.VolumeMounts) != 3 {
		t.Fatalf("sidecar %s mounts %+v", sidecar.Name, sidecar.VolumeMounts)
	}
	config, err := sidecarconfig.Decode(envOf(sidecar)[sidecarconfig.Variable])
	if err != nil || !config.ForWriter() || config.RelayPort != 24095 || config.DeliveryOf(config.Destinations[0]) != policy.DeliveryRelay {
		t.Fatalf("%v %+v", err, config)
	}
	for _, c := range []corev1.Container{pod.Spec.Containers[0], pod.Spec.InitContainers[2]} {
		env := envOf(c)
		if env["AMPBRIDGE_REMOTE_WRITE_URL"] != "http://127.0.0.1:24095/ampbridge-central/workspaces/ws-0123abcd/api/v1/remote_write" ||
			env["AMPBRIDGE_REMOTE_WRITE_USERNAME"] != "ampbridge" || env["AWS_ROLE_ARN"] != "" ||
			env["AMPBRIDGE_REMOTE_WRITE_PASSWORD_FILE"] != c.VolumeMounts[0].MountPath+"/relay-password" || !c.VolumeMounts[0].ReadOnly {
			t.Errorf("%s: %v %+v", c.Name, env, c.VolumeMounts)
		}
	}
	if again, d := injectNamedOnce(t, got, o); d.Reason != AlreadyInjected || string(again) != string(got) {
		t.Errorf("again: %s: %s", d.Reason, d.Warning)
	}
	// Another webhook removes restartPolicy of the native sidecar.
	pod.Spec.InitContainers[0].RestartPolicy = nil
	changed, err := json.Marshal(pod)
	testkit.Must(t, err)
	repaired, d := injectNamedOnce(t, changed, o)
	if init := typedPod(t, repaired).Spec.InitContainers; d.Reason != AlreadyInjected || init[0].RestartPolicy == nil || len(init) != 3 {
		t.Errorf("%s: %+v", d.Reason, init)
	}
	// A port that another container names is not used.
	_, got, _, _ = namedCase(t, "relay", "otel", func(p *corev1.Pod) { p.Spec.Containers[0].Args = []string{"--listen=:24095"} })
	config, err = sidecarconfig.Decode(envOf(typedPod(t, got).Spec.InitContainers[0])[sidecarconfig.Variable])
	if err != nil || config.RelayPort != 25095 {
		t.Errorf("port %d: %v", config.RelayPort, err)
	}
}

// The mark changes only with what the policy gives.
func TestMarkOfNamedContainers(t *testing.T) {
	for _, account := range []string{"identity", "relay", "chained"} {
		_, got, d, o := namedCase(t, account, "otel", nil)
		pod := decode(t, got)
		carried, today, err := Mark(pod, d.Entitlement, o.Policy)
		if err != nil || carried.Policy == "" || carried.Policy != today.Policy || carried.Mode != d.Mode {
			t.Errorf("%s: %v %+v %+v", account, err, carried, today)
		}
		o.Policy.Cluster.Name = "other"
		if carried, today, _ = Mark(pod, d.Entitlement, o.Policy); carried.Policy == today.Policy {
			t.Errorf("%s: the roles have changed, but the mark has not", account)
		}
		e := d.Entitlement
		e.Mode = policy.ModePrometheus
		if operations, d := Inject(pod, policy.Decision{Inject: true, Entitlement: e}, o); len(operations) > 0 || d.Reason != PartlyInjected {
			t.Errorf("%s: as mode prometheus: %s", account, d.Reason)
		}
	}
}
