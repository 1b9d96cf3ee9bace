package status_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	jsonpatch "github.com/evanphx/json-patch/v5"
	strictjson "github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ampbridge/ampbridge/cmd/internal/root"
	"github.com/ampbridge/ampbridge/cmd/internal/status"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/cluster"
	"github.com/ampbridge/ampbridge/webhook/audit"
	"github.com/ampbridge/ampbridge/webhook/breaker"
	"github.com/ampbridge/ampbridge/webhook/breaker/store"
	"github.com/ampbridge/ampbridge/webhook/inject"
	"github.com/ampbridge/ampbridge/webhook/sidecar"
)

const (
	accountID = "111122223333"
	image     = "ghcr.io/ampbridge/ampbridge:v0"
)

func policyText(sts string) string {
	return `apiVersion: ampbridge.io/v1alpha1
kind: Policy
cluster: {name: dev}
destinations:
- {name: central, workspace: "arn:aws:aps:eu-west-1:111122223333:workspace/ws-0001"}
- {name: kept, workspace: "arn:aws:aps:eu-west-1:111122223333:workspace/ws-0002", role: "arn:aws:iam::111122223333:role/by-hand"}
grants:
- {namespaces: [monitoring], serviceAccounts: [prometheus, second], destinations: [central]}
sidecar: {image: "` + image + `"}
sts: {endpoint: "` + sts + `"}
trust: {permissionsBoundary: "arn:aws:iam::111122223333:policy/boundary"}
`
}

type scene struct {
	*testing.T
	cluster *cluster.Cluster
	cloud   *awstest.Cloud
	policy  *policy.Policy
	text    string
}

// newScene is a cluster in which ampbridge is installed, as far as status looks
// at that, and an AWS.
func newScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{T: t, cluster: cluster.Start(t, cluster.Options{}), cloud: awstest.Start(t, awstest.Options{})}
	for name, labels := range map[string]map[string]string{"monitoring": {"ampbridge.io/injection": "enabled"}, "ampbridge-system": nil, "elsewhere": nil} {
		s.must(s.cluster.Namespace(t.Context(), name, labels))
	}
	for _, name := range []string{"prometheus", "second"} {
		_, err := s.cluster.Client().CoreV1().ServiceAccounts("monitoring").Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{
			Name: name, Annotations: map[string]string{policy.AnnotationRoleARN: "arn:aws:iam::111122223333:role/ampbridge/dev/ampbridge.dev.central"},
		}}, metav1.CreateOptions{})
		s.must(err)
	}
	s.text = policyText(s.cloud.URL)
	p, err := policy.Parse([]byte(s.text))
	s.must(err)
	s.policy = p
	_, err = s.cloud.RegisterIssuer(s.cluster.Issuer, s.cluster.OIDC(), awstest.PublicCA)
	s.must(err)
	account := s.cloud.Account(accountID)
	for _, id := range []string{"ws-0001", "ws-0003"} {
		account.AddWorkspace("eu-west-1", id)
	}
	_, err = account.PutManagedPolicy("boundary", `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"aps:RemoteWrite","Resource":"*"}}`)
	s.must(err)
	empty := s.file("empty", "")
	for _, v := range append(append(s.cloud.Environ(), account.AdminCredentials().Environ()...),
		"AWS_CONFIG_FILE="+empty, "AWS_SHARED_CREDENTIALS_FILE="+empty, "AWS_EC2_METADATA_DISABLED=true", "AWS_REGION=", "AWS_PROFILE=") {
		name, value, _ := strings.Cut(v, "=")
		t.Setenv(name, value)
	}
	return s
}

func (s *scene) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *scene) file(name, text string) string {
	s.Helper()
	path := filepath.Join(s.TempDir(), name)
	s.must(os.WriteFile(path, []byte(text), 0o600))
	return path
}

// install puts the policy where the chart puts it.
func (s *scene) install(name string) {
	s.Helper()
	_, err := s.cluster.Client().CoreV1().ConfigMaps("ampbridge-system").Create(s.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app.kubernetes.io/name": "ampbridge"}}, Data: map[string]string{"policy.yaml": s.text},
	}, metav1.CreateOptions{})
	s.must(err)
}

func (s *scene) run(args ...string) (code int, stdout, stderr string) {
	s.Helper()
	var out, errs bytes.Buffer
	code = root.Main(s.Context(), append(args, "--kubeconfig", s.cluster.Kubeconfig()), strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

func (s *scene) report(args ...string) (r status.Report) {
	s.Helper()
	code, out, errs := s.run(append([]string{"status", "-o", "json"}, args...)...)
	if code != root.OK {
		s.Fatalf("status %d: %s", code, errs)
	}
	s.must(json.Unmarshal([]byte(out), &r))
	return r
}

// pod makes a Prometheus pod, injected as the webhook does it or not, that runs
// at the address.
func (s *scene) pod(name, account string, injected bool, ip string, port int) {
	s.Helper()
	pod := &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "monitoring", Name: name, Labels: map[string]string{"app.kubernetes.io/name": "prometheus"}},
		Spec: corev1.PodSpec{
			ServiceAccountName: account,
			Containers: []corev1.Container{{
				Name: "prometheus", Image: "quay.io/prometheus/prometheus:v3.5.0",
				Args:         []string{"--config.file=/etc/prometheus/prometheus.yml", "--config.auto-reload-interval=1s", "--enable-feature=auto-reload-config"},
				VolumeMounts: []corev1.VolumeMount{{Name: "config", MountPath: "/etc/prometheus"}},
			}},
			Volumes: []corev1.Volume{{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: name}}}}},
		},
	}
	if injected {
		pod = s.inject(pod)
		for i := range pod.Spec.InitContainers {
			if c := &pod.Spec.InitContainers[i]; c.Name == inject.ContainerSidecar {
				c.Ports[0].ContainerPort = int32(port)
			}
		}
	}
	made, err := s.cluster.Client().CoreV1().Pods("monitoring").Create(s.Context(), pod, metav1.CreateOptions{})
	s.must(err)
	made.Status.Phase, made.Status.PodIP, made.Status.PodIPs = corev1.PodRunning, ip, []corev1.PodIP{{IP: ip}}
	made.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	_, err = s.cluster.Client().CoreV1().Pods("monitoring").UpdateStatus(s.Context(), made, metav1.UpdateOptions{})
	s.must(err)
}

func (s *scene) inject(pod *corev1.Pod) *corev1.Pod {
	s.Helper()
	text, err := json.Marshal(pod)
	s.must(err)
	seen, err := audit.Decode(text)
	s.must(err)
	decision := s.policy.Decide(policy.Request{Namespace: "monitoring", Injection: policy.InjectionEnabled, ServiceAccount: pod.Spec.ServiceAccountName, Prometheus: true})
	operations, outcome := inject.Inject(&seen.Pod, decision, inject.Options{Policy: s.policy, Image: image})
	if !outcome.Inject {
		s.Fatalf("not injected: %+v", outcome)
	}
	operationsText, err := strictjson.Marshal(operations)
	s.must(err)
	patch, err := jsonpatch.DecodePatch(operationsText)
	s.must(err)
	text, err = patch.Apply(text)
	s.must(err)
	injected := &corev1.Pod{}
	s.must(json.Unmarshal(text, injected))
	return injected
}

// runSidecar runs a sidecar as the pod's own, beside it.
func (s *scene) runSidecar(ip string) (port int) {
	s.Helper()
	listener, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
	s.must(err)
	port = listener.Addr().(*net.TCPAddr).Port
	s.must(listener.Close())
	token, err := s.cluster.Token(s.Context(), "monitoring", "prometheus", "sts.amazonaws.com", 3600)
	s.must(err)
	e, _ := s.policy.Entitled(policy.Subject{Namespace: "monitoring", ServiceAccount: "prometheus"})
	a := sidecarconfig.New(s.policy, e)
	source := s.file("prometheus.yml", "global: {}\n")
	a.Source, a.Target, a.File = filepath.Dir(source), s.TempDir(), "prometheus.yml"
	a.Credentials, a.Token = filepath.Join(s.TempDir(), "credentials"), s.file("token", token)
	ctx, cancel := context.WithCancel(s.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := sidecar.Run(ctx, sidecar.Options{
			Assignment: a.Encode(), Pod: "prometheus-0", Namespace: "monitoring", MetricsAddress: net.JoinHostPort(ip, strconv.Itoa(port)), Log: slog.New(slog.DiscardHandler),
		}); err != nil {
			s.Error(err)
		}
	}()
	s.Cleanup(func() { cancel(); <-done })
	return port
}

// words are those of each line, without columns and without the session's rest,
// which depends on the clock.
func words(out string) (lines []string) {
	for line := range strings.Lines(out) {
		words := strings.Join(strings.Fields(line), " ")
		if before, _, cut := strings.Cut(words, " session for "); cut {
			words = before + " session"
		}
		lines = append(lines, words)
	}
	return lines
}

func TestStatus(t *testing.T) {
	s := newScene(t)
	if code, _, errs := s.run("status"); code != root.Failed || !strings.Contains(errs, "namespace ampbridge-system has no policy") {
		t.Fatalf("status %d: %s", code, errs)
	}
	s.install("ampbridge-policy")
	r := s.report()
	if r.PolicyFrom != "ConfigMap ampbridge-system/ampbridge-policy" || r.Destinations[0].Roles[0].State != status.Absent || r.Destinations[1].Roles[0].State != status.NotManaged || len(r.Pods) > 0 {
		t.Errorf("before sync: %+v", r)
	}
	if r.Subjects[0].Shown == "" || r.Subjects[0].Decision != policy.Granted {
		t.Errorf("subject %+v", r.Subjects[0])
	}

	// Sync, then one more service account that the role does not know yet.
	if code, out, errs := s.run("sync", "--once", "--policy", s.file("policy.yaml", strings.Replace(s.text, "[prometheus, second]", "[prometheus]", 1))); code != root.OK {
		t.Fatal(out, errs)
	}
	ip, err := cluster.Address()
	s.must(err)
	s.pod("prometheus-0", "prometheus", true, ip, s.runSidecar(ip))
	s.pod("prometheus-1", "prometheus", true, ip, 1) // nobody listens
	s.pod("prometheus-2", "prometheus", false, ip, 0)
	s.pod("stranger", "default", false, ip, 0)

	deadline := time.Now().Add(time.Minute)
	for r = s.report(); !r.Pods[0].Sidecar["central"].BlockServed && time.Now().Before(deadline); r = s.report() {
		time.Sleep(200 * time.Millisecond)
	}
	if got := r.Pods[0].Sidecar["central"]; !got.SessionValid || !got.BlockServed || got.Expires.Before(time.Now()) {
		t.Errorf("sidecar %+v, %s", got, r.Pods[0].SidecarNotSeen)
	}
	if r.Pods[1].Sidecar != nil || !strings.Contains(r.Pods[1].SidecarNotSeen, "proxy") {
		t.Errorf("a sidecar that is not there: %+v, %q", r.Pods[1].Sidecar, r.Pods[1].SidecarNotSeen)
	}
	code, out, errs := s.run("status")
	if code != root.OK || errs != "" {
		t.Fatalf("status %d: %s", code, errs)
	}
	got := words(out)
	want := []string{
		"cluster dev, issuer " + s.cluster.Issuer + ", policy from ConfigMap ampbridge-system/ampbridge-policy",
		"",
		"DESTINATION ROLE SUBJECT TRUST POD STATE",
		"central 111122223333/ampbridge.dev.central monitoring/prometheus trusted prometheus-0 healthy, writing, session",
		"central 111122223333/ampbridge.dev.central monitoring/prometheus trusted prometheus-1 healthy, sidecar not seen",
		"central 111122223333/ampbridge.dev.central monitoring/prometheus trusted prometheus-2 missed",
		"central 111122223333/ampbridge.dev.central monitoring/second not trusted - no pod",
		"kept 111122223333/by-hand - not managed - no service account",
		"- - monitoring/default - stranger skipped: NotGranted",
		"",
		"not seen: the sidecar's image: no installed webhook names it, so that an open circuit is not told",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s\n%s", diff, out)
	}

	roleForEach(s)

	// Without AWS, from a file, and what is said of both.
	r = s.report("--no-aws", "--policy", s.file("policy.yaml", s.text))
	if r.Destinations[0].Roles[0].State != status.Unknown || !strings.Contains(strings.Join(r.NotSeen, "\n"), "AWS: --no-aws") || !strings.HasSuffix(r.PolicyFrom, "policy.yaml") {
		t.Errorf("%+v", r)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	if r = s.report(); r.Destinations[0].Roles[0].State != status.Unknown || !strings.Contains(strings.Join(r.NotSeen, "\n"), "AWS account 111122223333: no AWS credentials") {
		t.Errorf("%+v", r)
	}
	s.openCircuit("prometheus-2")
	r = s.report("--no-aws")
	if p := r.Pods[2]; p.Finding != audit.Skipped || p.Reason != breaker.CircuitOpen || strings.Contains(strings.Join(r.NotSeen, "\n"), "image") {
		t.Errorf("with an open circuit: %+v, not seen: %s", p, r.NotSeen)
	}
	s.install("a-second")
	if code, _, errs := s.run("status"); code != root.Failed || !strings.Contains(errs, "has 2 policies") {
		t.Errorf("status %d: %s", code, errs)
	}
	watch(s)
}

// roleForEach gives each service account a role of its own: of one that is well,
// of one that trusts another's, of one that is not made yet, and of nobody.
func roleForEach(s *scene) {
	s.Helper()
	text := strings.NewReplacer(
		"trust: {", "trust: {roleScope: serviceAccount, ",
		"grants:\n", `- {name: idle, workspace: "arn:aws:aps:eu-west-1:111122223333:workspace/ws-0003"}`+"\ngrants:\n",
	).Replace(s.text)
	p, err := policy.Parse([]byte(text))
	s.must(err)
	if code, out, errs := s.run("sync", "--once", "--policy", s.file("policy.yaml", text)); code != root.OK {
		s.Fatal(out, errs)
	}
	file := s.file("policy.yaml", strings.Replace(text, "[prometheus, second]", "[prometheus, second, third]", 1))
	_, err = s.cluster.Client().CoreV1().ServiceAccounts("monitoring").Create(s.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "third"}}, metav1.CreateOptions{})
	s.must(err)
	issuer := policy.Issuer(s.cluster.Issuer)
	first, second := policy.Subject{Namespace: "monitoring", ServiceAccount: "prometheus"}, policy.Subject{Namespace: "monitoring", ServiceAccount: "second"}
	_, err = iam.NewFromConfig(s.cloud.Config(s.cloud.Account(accountID).AdminCredentials(), "eu-west-1")).UpdateAssumeRolePolicy(s.Context(), &iam.UpdateAssumeRolePolicyInput{
		RoleName:       aws.String(p.RoleFor(p.Destinations[0], second).RoleName()),
		PolicyDocument: aws.String(policy.TrustDocument(issuer.ProviderARN("aws", accountID), issuer, p.Token.Audience, []policy.Subject{first}).String()),
	})
	s.must(err)
	code, out, errs := s.run("status", "--policy", file)
	if code != root.OK || errs != "" {
		s.Fatalf("status %d: %s", code, errs)
	}
	want := []string{
		"central 111122223333/ampbridge.dev.central.monitoring.prometheus monitoring/prometheus trusted prometheus-0",
		"central 111122223333/ampbridge.dev.central.monitoring.prometheus monitoring/prometheus trusted prometheus-1",
		"central 111122223333/ampbridge.dev.central.monitoring.prometheus monitoring/prometheus trusted prometheus-2",
		"central 111122223333/ampbridge.dev.central.monitoring.second monitoring/second not trusted -",
		"central 111122223333/ampbridge.dev.central.monitoring.third monitoring/third no role -",
		"kept 111122223333/by-hand - not managed -",
		"idle - - - - no service account",
	}
	got := words(out)
	for i, line := range want {
		if !strings.HasPrefix(got[3+i], line) {
			s.Errorf("%q, want %q\n%s", got[3+i], line, out)
		}
	}
	r := s.report("--no-aws", "--policy", file)
	if roles := r.Destinations[0].Roles; len(roles) != 3 || roles[1].Subject != second.String() || roles[1].ARN != p.RoleFor(p.Destinations[0], second) || roles[1].State != status.Unknown {
		s.Errorf("without AWS: %+v", roles)
	}
}

// openCircuit does what the auditor does when a pod hung, and installs a webhook
// that names the image that was to blame.
func (s *scene) openCircuit(pod string) {
	s.Helper()
	const other = "ghcr.io/ampbridge/ampbridge:v1"
	e, _ := s.policy.Entitled(policy.Subject{Namespace: "monitoring", ServiceAccount: "prometheus"})
	_, err := store.Change(s.Context(), s.cluster.Client().CoreV1().ConfigMaps("ampbridge-system"), func(state breaker.State) breaker.State {
		return state.With(breaker.Entry{Workload: breaker.Of("monitoring", pod, "", "", nil), Revision: breaker.Revision(s.policy, e, other), Cause: "ImagePullBackOff", Since: time.Now()})
	})
	s.must(err)
	labels := map[string]string{"app.kubernetes.io/name": "ampbridge", "app.kubernetes.io/component": "webhook"}
	_, err = s.cluster.Client().AppsV1().Deployments("ampbridge-system").Create(s.Context(), &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "ampbridge-webhook", Labels: labels},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "webhook", Image: other, Args: []string{"webhook", "--image", other}}}}},
		},
	}, metav1.CreateOptions{})
	s.must(err)
}

// watch looks again until it is interrupted, and that is no failure.
func watch(s *scene) {
	s.Helper()
	ctx, cancel := context.WithCancel(s.Context())
	defer cancel()
	looks := 0
	out := writer(func(text []byte) {
		if looks += bytes.Count(text, []byte("\x1b[2J")); looks == 2 {
			cancel()
		}
	})
	err := status.Run(ctx, status.Options{
		Policy: s.file("policy.yaml", s.text), Kubeconfig: s.cluster.Kubeconfig(), Namespace: "ampbridge-system", NoAWS: true, Watch: true, Interval: time.Second, Output: status.Text,
	}, nil, out)
	if err != nil || looks < 2 {
		s.Errorf("%d looks, %v", looks, err)
	}
}

type writer func([]byte)

func (w writer) Write(p []byte) (int, error) {
	w(p)
	return len(p), nil
}

func TestFlags(t *testing.T) {
	for args, want := range map[string]string{
		"--ampbridge-namespace=": "--ampbridge-namespace is empty",
		"--interval 1ms":         "--interval 1ms is too short",
		"--watch --policy -":     "--policy - and --watch exclude each other",
		"-o yaml":                `--output "yaml" is unknown`,
	} {
		var out, errs bytes.Buffer
		if code := root.Main(t.Context(), append([]string{"status"}, strings.Fields(args)...), nil, &out, &errs); code != root.Usage || !strings.Contains(errs.String(), want) {
			t.Errorf("%s: status %d: %s", args, code, errs.String())
		}
	}
}
