// Package doctor_test makes one check fail at a time, and runs doctor.
//
// All rows share one fixture: a real control plane, a double of AWS, and the webhook
// behind a Service, as the chart installs it. At the start of each row every check passes.
// The row injects one fault. It expects that exactly one check fails, and that every check
// before it passes. Then the test runs the commands of the fix. If there are none, the row does
// what the summary of the fix describes. At the end every check passes again.
package doctor_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iam"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/check"
	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/cluster"
	"github.com/ampbridge/ampbridge/test/kubelet"
	"github.com/ampbridge/ampbridge/test/servingcert"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/tools"
	"github.com/ampbridge/ampbridge/webhook/registration"
)

const (
	accountID      = "111122223333"
	region         = "eu-west-1"
	namespace      = "monitoring"
	serviceAccount = "prometheus"
	system         = "ampbridge-system"
	service        = "ampbridge-webhook"
	// issuerURL ends in a slash, as AKS's do, and its certificate is of a private
	// CA, as those of clusters at home are.
	issuerURL = "https://oidc.example.com/clusters/demo/"
	// timeout bounds the wait for a state that must come.
	timeout = 90 * time.Second
)

func TestMain(m *testing.M) {
	kubelet.Init()
	rest.SetDefaultWarningHandler(rest.NoWarnings{}) // doctor shows them
	os.Exit(m.Run())
}

// process is the process of the webhook, which rows stop and start; nil: it does not run.
type process struct{ *exec.Cmd }

// fixture is shared by all rows.
type fixture struct {
	// T is the row's, root the test's that all rows belong to.
	*testing.T
	root      *testing.T
	kube      *cluster.Cluster
	cloud     *awstest.Cloud
	account   *awstest.Account
	workspace *awstest.Workspace
	issuer    *awstest.Issuer
	published *published
	iam       *iam.Client

	dir, ampbridge, prometheus string
	// policyFile is the policy of doctor and sync. The webhook has another file, so that a row
	// that breaks the policy does not change the webhook.
	policyFile string
	proxy      string
	host       string

	webhook      *process
	webhookAddr  string
	registration *admissionv1.MutatingWebhookConfiguration
}

// newFixture installs ampbridge. It calls before while nothing is installed yet; nil: no call.
func newFixture(t *testing.T, before func(*fixture)) *fixture {
	t.Helper()
	s := &fixture{T: t, root: t, dir: t.TempDir(), webhook: &process{}}
	s.build()
	s.cloud = awstest.Start(t, awstest.Options{Prometheus: s.prometheus})
	s.account = s.cloud.Account(accountID)
	s.workspace = s.account.CreateWorkspace(region, "central")
	s.must(
		s.account.PutManagedPolicy(
			"boundary",
			`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["aps:RemoteWrite","sts:AssumeRole"],"Resource":"*"}]}`,
		),
	)
	s.iam = iam.NewFromConfig(s.cloud.Config(s.account.AdminCredentials(), region))

	s.kube = cluster.Start(t, cluster.Options{Issuer: issuerURL})
	s.published = &published{handler: s.kube.OIDC()}
	var err error
	if s.issuer, err = s.cloud.RegisterIssuer(issuerURL, s.published, awstest.PrivateCA); err != nil {
		t.Fatal(err)
	}
	s.startProxy()
	s.try(s.kube.Namespace(t.Context(), system, nil))
	s.try(s.kube.Namespace(t.Context(), namespace, map[string]string{policy.LabelInjection: "enabled"}))
	s.must(
		s.kube.Client().CoreV1().ServiceAccounts(
			namespace,
		).Create(
			t.Context(),
			&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: serviceAccount}},
			metav1.CreateOptions{},
		),
	)
	s.policyFile = filepath.Join(s.dir, "policy.yaml")
	s.setPolicy()
	s.try(os.WriteFile(filepath.Join(s.dir, "webhook-policy.yaml"), []byte(s.policy()), 0o600))
	if before != nil {
		before(s)
	}
	s.configMap()
	s.install()
	s.sync()
	return s
}

func (s *fixture) must(_ any, err error) { s.Helper(); s.try(err) }

func (s *fixture) try(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *fixture) build() {
	s.Helper()
	s.ampbridge = filepath.Join(s.dir, "ampbridge")
	out, err := exec.CommandContext(
		s.Context(),
		"go",
		"build",
		"-o",
		s.ampbridge,
		"github.com/ampbridge/ampbridge/cmd/ampbridge",
	).CombinedOutput()
	if err != nil {
		s.Fatalf("build ampbridge: %v\n%s", err, out)
	}
	if s.prometheus, err = tools.Find(s.Context(), "prometheus", os.Stderr); err != nil {
		s.Fatal(err)
	}
	s.host, err = cluster.Address()
	s.must(nil, err)
}

// policy returns the policy of the fixture, with replacements: old, new, old, new, …
func (s *fixture) policy(replace ...string) string {
	text := fmt.Sprintf(`apiVersion: ampbridge.io/v1alpha1
kind: Policy
paused: false
cluster:
  name: demo
  issuer: %s
destinations:
- name: central
  workspace: %s
  endpoint: %s
grants:
- namespaces: [%s]
  serviceAccounts: [%s]
  destinations: [central]
  environment: container
token: {source: projected}
sts:
  endpoint: %s
  caBundle: |
    %s
trust:
  permissionsBoundary: arn:aws:iam::%s:policy/boundary
`, issuerURL, s.workspace.ARN, s.cloud.URL, namespace, serviceAccount, s.cloud.TLSURL,
		strings.ReplaceAll(strings.TrimSpace(string(s.cloud.CA)), "\n", "\n    "), accountID)
	for i := 0; i < len(replace); i += 2 {
		if !strings.Contains(text, replace[i]) {
			s.Fatalf("the policy has no %q", replace[i])
		}
		text = strings.ReplaceAll(text, replace[i], replace[i+1])
	}
	return text
}

func (s *fixture) setPolicy(replace ...string) {
	s.Helper()
	s.try(os.WriteFile(s.policyFile, []byte(s.policy(replace...)), 0o600))
}

// configMap is the name of the chart's ConfigMap.
func (s *fixture) configMap() {
	s.Helper()
	s.must(s.kube.Client().CoreV1().ConfigMaps(system).Create(s.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "ampbridge-policy", Labels: map[string]string{"ampbridge.io/chart": "ampbridge"}},
		Data:       map[string]string{"policy.yaml": s.policy()},
	}, metav1.CreateOptions{}))
}

// install creates the webhook's objects that the chart creates (Service, endpoints, Secret and
// registration), and runs the webhook.
func (s *fixture) install() {
	s.Helper()
	ca, err := servingcert.Write(s.dir, service+"."+system+".svc")
	s.try(err)
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: service + "-tls"}, Data: map[string][]byte{}}
	for _, name := range []string{"tls.crt", "tls.key"} {
		secret.Data[name], err = os.ReadFile(filepath.Join(s.dir, name))
		s.try(err)
	}
	client := s.kube.Client()
	s.must(client.CoreV1().Secrets(system).Create(s.Context(), secret, metav1.CreateOptions{}))
	s.webhookAddr = testkit.FreeAddrOn(s.T, s.host)
	s.makeService()
	s.startWebhook()
	s.registration, err = registration.New(registration.Options{
		ClientConfig: admissionv1.WebhookClientConfig{
			Service: &admissionv1.ServiceReference{Namespace: system, Name: service, Port: new(int32(443))}, CABundle: ca,
		},
		ExcludedNamespaces: []string{system},
	})
	s.try(err)
	s.register()
}

func (s *fixture) makeService() {
	s.Helper()
	_, port, err := net.SplitHostPort(s.webhookAddr)
	s.try(err)
	var number int32
	_, err = fmt.Sscan(port, &number)
	s.try(err)
	client := s.kube.Client()
	s.must(client.CoreV1().Services(system).Create(s.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: service}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "webhook", Port: 443}}},
	}, metav1.CreateOptions{}))
	s.must(client.DiscoveryV1().EndpointSlices(system).Create(s.Context(), &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: service, Labels: map[string]string{discoveryv1.LabelServiceName: service}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{s.host}, Conditions: discoveryv1.EndpointConditions{Ready: new(true)}}},
		Ports:       []discoveryv1.EndpointPort{{Name: new("webhook"), Port: &number, Protocol: new(corev1.ProtocolTCP)}},
	}, metav1.CreateOptions{}))
}

// startWebhook runs the webhook as its own process.
func (s *fixture) startWebhook() {
	s.Helper()
	health := testkit.FreeAddr(s.T)
	cmd := exec.Command(s.ampbridge, "webhook", "--policy", filepath.Join(s.dir, "webhook-policy.yaml"), "--cert-dir", s.dir,
		"--addr", s.webhookAddr, "--health-addr", health, "--metrics-addr", testkit.FreeAddr(s.T),
		"--image", "registry.example/ampbridge:dev", "--kubeconfig", s.kube.Kubeconfig(), "--system-namespace", system, "--drain-delay", "0s")
	cmd.Env = []string{"HOME=" + s.dir}
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	s.try(cmd.Start())
	s.webhook.Cmd = cmd
	s.root.Cleanup(s.stopWebhook)
	s.eventually("the webhook is ready", func() bool {
		response, err := http.Get("http://" + health + "/readyz")
		if err != nil {
			return false
		}
		_ = response.Body.Close()
		return response.StatusCode == http.StatusOK
	})
}

func (s *fixture) stopWebhook() {
	if s.webhook.Cmd == nil {
		return
	}
	_ = s.webhook.Process.Kill()
	_ = s.webhook.Wait() // killed
	s.webhook.Cmd = nil
}

// register creates the registration, and waits until the API server has read it.
func (s *fixture) register() {
	s.Helper()
	configurations := s.kube.Client().AdmissionregistrationV1().MutatingWebhookConfigurations()
	if err := configurations.Delete(s.Context(), s.registration.Name, metav1.DeleteOptions{}); err == nil {
		s.Log("registered again")
	}
	s.must(configurations.Create(s.Context(), s.registration.DeepCopy(), metav1.CreateOptions{}))
	s.waitForInjection(true)
}

// waitForInjection waits until pods are injected, or are not. The API server reads the objects of
// the registration with a delay.
func (s *fixture) waitForInjection(want bool) {
	s.Helper()
	s.eventually(fmt.Sprintf("pods are injected: %v", want), func() bool {
		pod, err := s.kube.Client().CoreV1().Pods(
			namespace,
		).Create(
			s.Context(),
			prometheusPod("probe", nil),
			metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}},
		)
		s.try(err)
		return (pod.Annotations["ampbridge.io/injected"] != "") == want
	})
}

func (s *fixture) eventually(what string, ok func() bool) {
	s.Helper()
	testkit.Within(s.T, timeout, what, ok)
}

// sync runs `ampbridge sync --once` with further flags.
func (s *fixture) sync(flags ...string) {
	s.Helper()
	s.run(append([]string{"sync", "--once", "--policy", s.policyFile, "--kubeconfig", s.kube.Kubeconfig()}, flags...)...)
}

// run runs ampbridge as an administrator of cluster and account.
func (s *fixture) run(args ...string) {
	s.Helper()
	cmd := exec.CommandContext(s.Context(), s.ampbridge, args...)
	cmd.Env = s.environ()
	if out, err := cmd.CombinedOutput(); err != nil {
		s.Fatalf("ampbridge %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// environ returns the environment of an administrator. All requests to the internet use the proxy.
func (s *fixture) environ() []string {
	ca := filepath.Join(s.dir, "public-ca.pem")
	s.try(os.WriteFile(ca, s.cloud.CA, 0o600))
	return append(append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir, "AWS_REGION=" + region, "HTTPS_PROXY=" + s.proxy, "SSL_CERT_FILE=" + ca,
	}, s.cloud.Environ()...), s.account.AdminCredentials().Environ()...)
}

// answer is the JSON output of doctor.
type answer struct {
	Version int        `json:"version"`
	Summary string     `json:"summary"`
	Failed  []check.ID `json:"failed"`
	// NotChecked are the checks with a skipped finding.
	NotChecked []check.ID `json:"notChecked"`
	check.Report
	status int
	stderr string
}

// secrets matches the start of every JSON Web Token. Doctor must not print one.
const tokenStart = "eyJ"

// doctor runs doctor as its own process.
func (s *fixture) doctor(env []string, args ...string) answer {
	s.Helper()
	cmd := exec.CommandContext(s.Context(), s.ampbridge, append([]string{"doctor", "-o", "json"}, args...)...)
	cmd.Env = env
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.Fatal(err)
	}
	var a answer
	if err := json.Unmarshal(out.Bytes(), &a); err != nil {
		s.Fatalf("doctor: %v\n%s\n%s", err, out.String(), errs.String())
	}
	a.status, a.stderr = cmd.ProcessState.ExitCode(), errs.String()
	for _, secret := range []string{tokenStart, s.account.AdminCredentials().SecretAccessKey} {
		if strings.Contains(out.String()+errs.String(), secret) {
			s.Errorf("doctor printed a secret:\n%s%s", out.String(), errs.String())
		}
	}
	return a
}

// text returns the findings, a line each, and the summary.
func (a answer) text() string {
	var b strings.Builder
	for _, f := range a.Findings {
		fmt.Fprintf(&b, "%s %-15s  %s: %s\n", f.Status, f.ID, f.About, f.Message)
	}
	return b.String() + a.Summary
}

// finding returns the first failed one.
func (a answer) finding() check.Finding {
	i := slices.IndexFunc(a.Findings, func(f check.Finding) bool { return f.Status == check.Fail })
	if i < 0 {
		return check.Finding{}
	}
	return a.Findings[i]
}

// published is a proxy before the issuer, so that a row can change what the issuer publishes.
type published struct {
	mu      sync.Mutex
	handler http.Handler
	instead http.Handler
}

func (p *published) replace(h http.Handler) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.instead = h
}

// ServeHTTP implements [http.Handler].
func (p *published) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	h := p.handler
	if p.instead != nil {
		h = p.instead
	}
	p.mu.Unlock()
	h.ServeHTTP(w, r)
}

// startProxy starts the proxy that stands for the internet. It connects only to the hosts of the
// issuers that the double knows.
func (s *fixture) startProxy() {
	s.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	s.try(err)
	server := &http.Server{ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		awstest.Tunnel(w, r, func() (net.Conn, error) { return s.cloud.DialIssuer(r.Context(), "tcp", r.Host) })
	})}
	go func() { _ = server.Serve(l) }()
	s.root.Cleanup(func() { _ = server.Close() })
	s.proxy = "http://" + l.Addr().String()
}

// freePort returns a free port of a host.
func freePort(t *testing.T, host string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(testkit.FreeAddrOn(t, host))
	testkit.Must(t, err)
	return port
}
