package status_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net"
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

	"github.com/ampbridge/ampbridge/cmd/internal/cli"
	"github.com/ampbridge/ampbridge/cmd/internal/cli/clitest"
	"github.com/ampbridge/ampbridge/cmd/internal/status"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/cluster"
	"github.com/ampbridge/ampbridge/test/testkit"
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

type fixture struct {
	*testing.T
	cluster *cluster.Cluster
	cloud   *awstest.Cloud
	policy  *policy.Policy
	text    string
}

// newFixture is a cluster in which ampbridge is installed, as far as status looks
// at that, and an AWS.
func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{T: t, cluster: cluster.Start(t, cluster.Options{}), cloud: awstest.Start(t, awstest.Options{})}
	for name, labels := range map[string]map[string]string{"monitoring": {"ampbridge.io/injection": "enabled"}, "ampbridge-system": nil,
		"elsewhere": nil} {
		f.must(f.cluster.Namespace(t.Context(), name, labels))
	}
	for _, name := range []string{"prometheus", "second"} {
		_, err := f.cluster.Client().CoreV1().ServiceAccounts(
			"monitoring",
		).Create(
			t.Context(),
			&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{
				Name: name,
				Annotations: map[string]string{
					policy.AnnotationRoleARN: "arn:aws:iam::111122223333:role/ampbridge/dev/ampbridge.dev.central",
				},
			}},
			metav1.CreateOptions{},
		)
		f.must(err)
	}
	f.text = policyText(f.cloud.URL)
	p, err := policy.Parse([]byte(f.text))
	f.must(err)
	f.policy = p
	_, err = f.cloud.RegisterIssuer(f.cluster.Issuer, f.cluster.OIDC(), awstest.PublicCA)
	f.must(err)
	account := f.cloud.Account(accountID)
	for _, id := range []string{"ws-0001", "ws-0003"} {
		account.AddWorkspace("eu-west-1", id)
	}
	_, err = account.PutManagedPolicy(
		"boundary",
		`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"aps:RemoteWrite","Resource":"*"}}`,
	)
	f.must(err)
	f.cloud.Setenv(t, account.AdminCredentials())
	return f
}

func (f *fixture) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

// install puts the policy where the chart puts it.
func (f *fixture) install(name string) {
	f.Helper()
	_, err := f.cluster.Client().CoreV1().ConfigMaps("ampbridge-system").Create(f.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Name:   name,
			Labels: map[string]string{"ampbridge.io/chart": "ampbridge"},
		},
		Data: map[string]string{"policy.yaml": f.text},
	}, metav1.CreateOptions{})
	f.must(err)
}

func (f *fixture) run(args ...string) (code int, stdout, stderr string) {
	f.Helper()
	return clitest.Run(f.Context(), "", append(args, "--kubeconfig", f.cluster.Kubeconfig())...)
}

func (f *fixture) report(args ...string) (r status.Report) {
	f.Helper()
	code, out, errs := f.run(append([]string{"status", "-o", "json"}, args...)...)
	if code != cli.OK {
		f.Fatalf("status %d: %s", code, errs)
	}
	f.must(json.Unmarshal([]byte(out), &r))
	return r
}

// pod makes a Prometheus pod, injected as the webhook does it or not, that runs
// at the address.
func (f *fixture) pod(name, account string, injected bool, ip string, port int) {
	f.Helper()
	pod := &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "monitoring",
			Name:      name,
			Labels:    map[string]string{"app.kubernetes.io/name": "prometheus"},
		},
		Spec: corev1.PodSpec{
			ServiceAccountName: account,
			Containers: []corev1.Container{
				{
					Name:  "prometheus",
					Image: "quay.io/prometheus/prometheus:v3.5.0",
					Args: []string{
						"--config.file=/etc/prometheus/prometheus.yml",
						"--config.auto-reload-interval=1s",
						"--enable-feature=auto-reload-config",
					},
					VolumeMounts: []corev1.VolumeMount{{Name: "config", MountPath: "/etc/prometheus"}},
				},
			},
			Volumes: []corev1.Volume{
				{
					Name: "config",
					VolumeSource: corev1.VolumeSource{
						ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: name}},
					},
				},
			},
		},
	}
	if injected {
		pod = f.inject(pod)
		for i := range pod.Spec.InitContainers {
			if c := &pod.Spec.InitContainers[i]; c.Name == sidecarconfig.ContainerName {
				c.Ports[0].ContainerPort = int32(port)
			}
		}
	}
	made, err := f.cluster.Client().CoreV1().Pods("monitoring").Create(f.Context(), pod, metav1.CreateOptions{})
	f.must(err)
	made.Status.Phase, made.Status.PodIP, made.Status.PodIPs = corev1.PodRunning, ip, []corev1.PodIP{{IP: ip}}
	made.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	_, err = f.cluster.Client().CoreV1().Pods("monitoring").UpdateStatus(f.Context(), made, metav1.UpdateOptions{})
	f.must(err)
}

func (f *fixture) inject(pod *corev1.Pod) *corev1.Pod {
	f.Helper()
	text, err := json.Marshal(pod)
	f.must(err)
	seen, err := audit.Decode(text)
	f.must(err)
	decision := f.policy.Decide(
		policy.Request{
			Namespace:      "monitoring",
			Injection:      policy.InjectionEnabled,
			ServiceAccount: pod.Spec.ServiceAccountName,
			Prometheus:     true,
		},
	)
	operations, outcome := inject.Inject(&seen.Pod, decision, inject.Options{Policy: f.policy, Image: image})
	if !outcome.Inject {
		f.Fatalf("not injected: %+v", outcome)
	}
	operationsText, err := strictjson.Marshal(operations)
	f.must(err)
	patch, err := jsonpatch.DecodePatch(operationsText)
	f.must(err)
	text, err = patch.Apply(text)
	f.must(err)
	injected := &corev1.Pod{}
	f.must(json.Unmarshal(text, injected))
	return injected
}

// runSidecar runs a sidecar as the pod's own, beside it.
func (f *fixture) runSidecar(ip string) (port int) {
	f.Helper()
	listener, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
	f.must(err)
	port = listener.Addr().(*net.TCPAddr).Port
	f.must(listener.Close())
	token, err := f.cluster.Token(f.Context(), "monitoring", "prometheus", "sts.amazonaws.com", 3600)
	f.must(err)
	e, _ := f.policy.Entitled(policy.Subject{Namespace: "monitoring", ServiceAccount: "prometheus"})
	a := sidecarconfig.New(f.policy, e)
	source := testkit.TempFile(f, "prometheus.yml", "global: {}\n")
	a.Source, a.Target, a.File = filepath.Dir(source), f.TempDir(), "prometheus.yml"
	a.Credentials, a.Token = filepath.Join(f.TempDir(), "credentials"), testkit.TempFile(f, "token", token)
	ctx, cancel := context.WithCancel(f.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := sidecar.Run(ctx, sidecar.Options{
			Config:         a.Encode(),
			Version:        "v0",
			Pod:            "prometheus-0",
			Namespace:      "monitoring",
			MetricsAddress: net.JoinHostPort(ip, strconv.Itoa(port)),
			Log:            slog.New(slog.DiscardHandler),
		}); err != nil {
			f.Error(err)
		}
	}()
	f.Cleanup(func() { cancel(); <-done })
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

// Each state of a sidecar in the table's last two columns.
func TestDeliveryColumn(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	well := status.Sidecar{
		Delivery: sidecarconfig.DeliveryRelay, SessionValid: true, BlockServed: true, Expires: now.Add(time.Hour),
	}
	for _, c := range []struct {
		name   string
		change func(*status.Pod, *status.Sidecar)
		want   string
	}{
		{"relay", func(*status.Pod, *status.Sidecar) {}, "relay healthy, writing, session for 1h0m0s"},
		{"sidecar unavailable", func(p *status.Pod, _ *status.Sidecar) { p.Sidecar = nil }, "sigv4 healthy, sidecar unavailable"},
		{"not known", func(p *status.Pod, _ *status.Sidecar) { p.Sidecar, p.Delivery = nil, nil }, "- healthy, sidecar unavailable"},
		{"moved", func(_ *status.Pod, s *status.Sidecar) { s.Moved = "no session" }, "relay (moved) healthy, writing, session for 1h0m0s"},
		{"moves", func(_ *status.Pod, s *status.Sidecar) {
			s.Delivery, s.Moved = sidecarconfig.DeliveryMoving, "no session"
		},
			"moving (moved) healthy, writing, session for 1h0m0s"},
		{"not taken", func(_ *status.Pod, s *status.Sidecar) { s.Delivery, s.NotTaken = sidecarconfig.DeliverySigV4, true },
			"sigv4 healthy, session not taken: Prometheus refuses its configuration"},
		{"no session", func(_ *status.Pod, s *status.Sidecar) { s.SessionValid = false },
			"relay healthy, no session, samples wait in Prometheus"},
		{"refused", func(_ *status.Pod, s *status.Sidecar) { s.Refused = "AMP answered a write with 403 AccessDenied" },
			"relay healthy, writing, session for 1h0m0s, AMP answered a write with 403 AccessDenied"},
		{"older sidecar", func(p *status.Pod, s *status.Sidecar) { s.Delivery, p.Versions = "", "the sidecar is older" },
			"sigv4 healthy, writing, session for 1h0m0s, the sidecar is older"},
	} {
		sidecar := well
		pod := status.Pod{
			Namespace: "m", Name: "p-0", ServiceAccount: "p", Phase: "Running", Ready: true, Finding: audit.Healthy,
			Destinations: []string{"central"}, Delivery: map[string]policy.Delivery{"central": policy.DeliverySigV4},
			Sidecar: map[string]status.Sidecar{},
		}
		c.change(&pod, &sidecar)
		if pod.Sidecar != nil {
			pod.Sidecar["central"] = sidecar
		}
		r := status.Report{
			Time: now, Destinations: []status.Destination{{Name: "central", Roles: []status.Role{{State: status.Unknown}}}},
			Subjects: []status.Subject{{Namespace: "m", ServiceAccount: "p", Destinations: []string{"central"}}},
			Pods:     []status.Pod{pod},
		}
		if got := strings.Join(strings.Fields(r.String()), " "); !strings.HasSuffix(got, " p-0 "+c.want) {
			t.Errorf("%s: %s\nwant …%s", c.name, got, c.want)
		}
	}
}

func TestStatusShowsTheInstallation(t *testing.T) {
	f := newFixture(t)
	if code, _, errs := f.run("status"); code != cli.Failed || !strings.Contains(errs, "namespace ampbridge-system has no policy") {
		t.Fatalf("status %d: %s", code, errs)
	}
	f.install("ampbridge-policy")
	r := f.report()
	if r.PolicyFrom != "ConfigMap ampbridge-system/ampbridge-policy" || r.Destinations[0].Roles[0].State != status.Absent ||
		r.Destinations[1].Roles[0].State != status.NotManaged ||
		len(r.Pods) > 0 {
		t.Errorf("before sync: %+v", r)
	}
	if r.Subjects[0].Shown == "" || r.Subjects[0].Decision != policy.Granted {
		t.Errorf("subject %+v", r.Subjects[0])
	}

	// Sync, then one more service account that the role does not know yet.
	if code, out, errs := f.run(
		"sync",
		"--once",
		"--policy",
		testkit.TempFile(f, "policy.yaml", strings.Replace(f.text, "[prometheus, second]", "[prometheus]", 1)),
	); code != cli.OK {
		t.Fatal(out, errs)
	}
	ip, err := cluster.Address()
	f.must(err)
	f.pod("prometheus-0", "prometheus", true, ip, f.runSidecar(ip))
	f.pod("prometheus-1", "prometheus", true, ip, 1) // nobody listens
	f.pod("prometheus-2", "prometheus", false, ip, 0)
	f.pod("stranger", "default", false, ip, 0)

	deadline := time.Now().Add(time.Minute)
	for r = f.report(); !r.Pods[0].Sidecar["central"].BlockServed && time.Now().Before(deadline); r = f.report() {
		time.Sleep(200 * time.Millisecond)
	}
	if got := r.Pods[0].Sidecar["central"]; !got.SessionValid || !got.BlockServed || got.Expires.Before(time.Now()) {
		t.Errorf("sidecar %+v, %s", got, r.Pods[0].SidecarUnavailable)
	}
	if r.Pods[1].Sidecar != nil || !strings.Contains(r.Pods[1].SidecarUnavailable, "proxy") {
		t.Errorf("a sidecar that is not there: %+v, %q", r.Pods[1].Sidecar, r.Pods[1].SidecarUnavailable)
	}
	code, out, errs := f.run("status")
	if code != cli.OK || errs != "" {
		t.Fatalf("status %d: %s", code, errs)
	}
	got := words(out)
	want := []string{
		"cluster dev, issuer " + f.cluster.Issuer + ", policy from ConfigMap ampbridge-system/ampbridge-policy",
		"",
		"DESTINATION ROLE SUBJECT TRUST POD DELIVERY STATE",
		"central 111122223333/ampbridge.dev.central monitoring/prometheus trusted prometheus-0 sigv4 healthy, " +
			"writing, session",
		"central 111122223333/ampbridge.dev.central monitoring/prometheus trusted prometheus-1 sigv4 healthy, sidecar " +
			"unavailable",
		"central 111122223333/ampbridge.dev.central monitoring/prometheus trusted prometheus-2 - missed",
		"central 111122223333/ampbridge.dev.central monitoring/second not trusted - - no pod",
		"kept 111122223333/by-hand - not managed - - no service account",
		"- - monitoring/default - stranger - skipped: NotGranted",
		"",
		"unavailable: the sidecar's image: no installed webhook names it, so open circuit breakers are not shown",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s\n%s", diff, out)
	}

	// A grant was taken away, and sync has not run.
	narrower := testkit.TempFile(f, "policy.yaml", strings.Replace(f.text, "[prometheus, second]", "[second]", 1))
	const drift = "\ndrift: role 111122223333/ampbridge.dev.central trusts " +
		"system:serviceaccount:monitoring:prometheus, which no grant covers: "
	if _, out, _ := f.run("status", "--policy", narrower); !strings.Contains(out, drift) {
		t.Errorf("no drift:\n%s", out)
	}
	if r := f.report("--policy", narrower, "-n", "default"); len(r.Destinations[0].Roles[0].NotGranted) != 1 {
		t.Errorf("of another namespace: %+v", r.Destinations[0].Roles)
	}
	if r := f.report("-n", "default"); len(r.Destinations[0].Roles[0].NotGranted) != 0 {
		t.Errorf("drift where there is none: %+v", r.Destinations[0].Roles)
	}

	roleForEach(f)

	// Without AWS, from a file, and what is said of both.
	r = f.report("--no-aws", "--policy", testkit.TempFile(f, "policy.yaml", f.text))
	if r.Destinations[0].Roles[0].State != status.Unknown || !strings.Contains(strings.Join(r.Unavailable, "\n"), "AWS: --no-aws") ||
		!strings.HasSuffix(r.PolicyFrom, "policy.yaml") {
		t.Errorf("%+v", r)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	if r = f.report(); r.Destinations[0].Roles[0].State != status.Unknown ||
		!strings.Contains(strings.Join(r.Unavailable, "\n"), "AWS account 111122223333: no AWS credentials") {
		t.Errorf("%+v", r)
	}
	f.openCircuit("prometheus-2")
	r = f.report("--no-aws")
	if p := r.Pods[2]; p.Finding != audit.Skipped || p.Reason != breaker.CircuitOpen ||
		strings.Contains(strings.Join(r.Unavailable, "\n"), "image") {
		t.Errorf("with an open circuit: %+v, unavailable: %s", p, r.Unavailable)
	}
	f.install("a-second")
	if code, _, errs := f.run("status"); code != cli.Failed || !strings.Contains(errs, "has 2 policies") {
		t.Errorf("status %d: %s", code, errs)
	}
	watch(f)
}

// roleForEach gives each service account a role of its own: of one that is well,
// of one that trusts another's, of one that is not made yet, and of nobody.
func roleForEach(f *fixture) {
	f.Helper()
	text := strings.NewReplacer(
		"trust: {", "trust: {roleScope: serviceAccount, ",
		"grants:\n", `- {name: idle, workspace: "arn:aws:aps:eu-west-1:111122223333:workspace/ws-0003"}`+"\ngrants:\n",
	).Replace(f.text)
	p, err := policy.Parse([]byte(text))
	f.must(err)
	if code, out, errs := f.run("sync", "--once", "--policy", testkit.TempFile(f, "policy.yaml", text)); code != cli.OK {
		f.Fatal(out, errs)
	}
	file := testkit.TempFile(f, "policy.yaml", strings.Replace(text, "[prometheus, second]", "[prometheus, second, third]", 1))
	_, err = f.cluster.Client().CoreV1().ServiceAccounts(
		"monitoring",
	).Create(
		f.Context(),
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "third"}},
		metav1.CreateOptions{},
	)
	f.must(err)
	issuer := policy.Issuer(f.cluster.Issuer)
	first, second := policy.Subject{
		Namespace:      "monitoring",
		ServiceAccount: "prometheus",
	}, policy.Subject{
		Namespace:      "monitoring",
		ServiceAccount: "second",
	}
	_, err = iam.NewFromConfig(
		f.cloud.Config(f.cloud.Account(accountID).AdminCredentials(), "eu-west-1"),
	).UpdateAssumeRolePolicy(
		f.Context(),
		&iam.UpdateAssumeRolePolicyInput{
			RoleName: aws.String(p.RoleFor(p.Destinations[0], second).RoleName()),
			PolicyDocument: aws.String(
				policy.TrustDocument(issuer.ProviderARN("aws", accountID), issuer, p.Token.Audience, []policy.Subject{first}).String(),
			),
		},
	)
	f.must(err)
	code, out, errs := f.run("status", "--policy", file)
	if code != cli.OK || errs != "" {
		f.Fatalf("status %d: %s", code, errs)
	}
	want := []string{
		"central 111122223333/ampbridge.dev.central.monitoring.prometheus monitoring/prometheus trusted prometheus-0",
		"central 111122223333/ampbridge.dev.central.monitoring.prometheus monitoring/prometheus trusted prometheus-1",
		"central 111122223333/ampbridge.dev.central.monitoring.prometheus monitoring/prometheus trusted prometheus-2",
		"central 111122223333/ampbridge.dev.central.monitoring.second monitoring/second not trusted -",
		"central 111122223333/ampbridge.dev.central.monitoring.third monitoring/third no role -",
		"kept 111122223333/by-hand - not managed - -",
		"idle - - - - - no service account",
	}
	got := words(out)
	for i, line := range want {
		if !strings.HasPrefix(got[3+i], line) {
			f.Errorf("%q, want %q\n%s", got[3+i], line, out)
		}
	}
	r := f.report("--no-aws", "--policy", file)
	if roles := r.Destinations[0].Roles; len(roles) != 3 || roles[1].Subject != second.String() ||
		roles[1].ARN != p.RoleFor(p.Destinations[0], second) ||
		roles[1].State != status.Unknown {
		f.Errorf("without AWS: %+v", roles)
	}
}

// openCircuit does what the auditor does when a pod hung, and installs a webhook
// that names the image that was to blame.
func (f *fixture) openCircuit(pod string) {
	f.Helper()
	const other = "ghcr.io/ampbridge/ampbridge:v1"
	e, _ := f.policy.Entitled(policy.Subject{Namespace: "monitoring", ServiceAccount: "prometheus"})
	_, err := store.Change(
		f.Context(),
		f.cluster.Client().CoreV1().ConfigMaps("ampbridge-system"),
		func(state breaker.State) breaker.State {
			return state.With(
				breaker.Entry{
					Workload: breaker.Of("monitoring", pod, "", "", nil),
					Revision: breaker.Revision(f.policy, e, other),
					Cause:    "ImagePullBackOff",
					Since:    time.Now(),
				},
			)
		},
	)
	f.must(err)
	labels := map[string]string{"ampbridge.io/chart": "ampbridge", "app.kubernetes.io/component": "webhook"}
	_, err = f.cluster.Client().AppsV1().Deployments("ampbridge-system").Create(f.Context(), &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "ampbridge-webhook", Labels: labels},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{
					Containers: []corev1.Container{{Name: "webhook", Image: other, Args: []string{"webhook", "--image", other}}},
				},
			},
		},
	}, metav1.CreateOptions{})
	f.must(err)
}

// watch looks again until it is interrupted, and that is no failure.
func watch(f *fixture) {
	f.Helper()
	ctx, cancel := context.WithCancel(f.Context())
	defer cancel()
	looks := 0
	out := writer(func(text []byte) {
		if looks += bytes.Count(text, []byte("\x1b[2J")); looks == 2 {
			cancel()
		}
	})
	err := status.Run(ctx, status.Options{
		Policy: testkit.TempFile(f,
			"policy.yaml",
			f.text,
		),
		Kubeconfig: f.cluster.Kubeconfig(),
		Namespace:  "ampbridge-system",
		NoAWS:      true,
		Watch:      true,
		Interval:   time.Second,
		Output:     status.Text,
	}, nil, out)
	if err != nil || looks < 2 {
		f.Errorf("%d looks, %v", looks, err)
	}
}

type writer func([]byte)

func (w writer) Write(p []byte) (int, error) {
	w(p)
	return len(p), nil
}

// The webhook does not see the pods of a namespace without a known label, so the table is silent
// about them.
func TestUnseenNamespaces(t *testing.T) {
	f := newFixture(t)
	for name, label := range map[string]string{"obs": "true", "team-a": "Enabled", "team-b": "", "foreign": "true", "empty": "annotated"} {
		labels := map[string]string{policy.LabelInjection: label}
		if label == "" {
			labels = nil
		}
		f.must(f.cluster.Namespace(t.Context(), name, labels))
	}
	path := testkit.TempFile(t, "policy.yaml", strings.Replace(f.text, "grants:\n", `grants:
- {namespaces: [obs, monitoring, elsewhere, monitorng, empty], serviceAccounts: [prometheus], destinations: [central]}
- {namespaces: ["team-*"], serviceAccounts: [prometheus], destinations: [central]}
`, 1))
	for namespace, want := range map[string][]string{
		"": {
			`namespace obs: its label ampbridge.io/injection is "true", so the webhook does not see its pods: ` +
				"kubectl label --overwrite namespace obs ampbridge.io/injection=enabled",
			`namespace team-a: its label ampbridge.io/injection is "Enabled", so the webhook does not see its pods: ` +
				"kubectl label --overwrite namespace team-a ampbridge.io/injection=enabled",
			"namespace elsewhere: it has no label ampbridge.io/injection, so the webhook does not see its pods: " +
				"kubectl label namespace elsewhere ampbridge.io/injection=enabled",
			"namespace monitorng: it does not exist",
		},
		"team-b": {"namespace team-b: it has no label ampbridge.io/injection, so the webhook does not see its pods: " +
			"kubectl label namespace team-b ampbridge.io/injection=enabled"},
		"nowhere":    {"namespace nowhere: it does not exist"},
		"monitoring": nil,
	} {
		code, out, errs := f.run("status", "--no-aws", "--policy", path, "-n", namespace)
		var got []string
		for line := range strings.Lines(out) {
			if strings.HasPrefix(line, "namespace ") {
				got = append(got, strings.TrimSpace(line))
			}
		}
		if diff := cmp.Diff(want, got); diff != "" || code != cli.OK {
			t.Errorf("-n %q: status %d %s (-want +got):\n%s", namespace, code, errs, diff)
		}
	}
	r := f.report("--no-aws", "--policy", path, "-n", "obs")
	if diff := cmp.Diff([]status.Namespace{{Name: "obs", Exists: true, Injection: "true"}}, r.Unseen); diff != "" {
		t.Errorf("-o json (-want +got):\n%s", diff)
	}
}
