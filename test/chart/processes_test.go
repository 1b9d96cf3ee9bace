package chart

import (
	"bytes"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/tools"
)

// testProcesses runs what the chart deploys, outside of a pod: the real program
// with the chart's arguments, policy and service accounts. Nothing that it does
// may be forbidden.
func (f *fixture) testProcesses(t *testing.T) {
	all, policy := render(t, "-f", minimal), minimalPolicy(t)
	for _, component := range []string{"webhook", "sync"} {
		name := "ampbridge-" + component
		p := f.startDeployment(t, name, all, policy)
		switch component {
		case "webhook":
			p.shows(t, "\nampbridge_certificate_trusted 1\n")
		case "sync":
			p.shows(
				t,
				"\nampbridge_sync_leader 1\n",
				"\nampbridge_audit_last_success_timestamp_seconds 1",
				"\nampbridge_sync_last_success_timestamp_seconds 1",
			)
		}
		if text := p.log.String(); strings.Contains(text, "forbidden") || strings.Contains(text, `"level":"ERROR"`) {
			t.Errorf("%s:\n%s", name, text)
		}
	}

	ctx := t.Context()
	secret, err := f.Client().CoreV1().Secrets(namespace).Get(ctx, "ampbridge-webhook-tls", metav1.GetOptions{})
	testkit.Must(t, err)
	registered := f.registration(t)
	for _, w := range registered.Webhooks {
		if len(secret.Data["ca.crt"]) == 0 || !bytes.Equal(secret.Data["ca.crt"], w.ClientConfig.CABundle) {
			t.Errorf("%s has the CA bundle %q, and the Secret %q", w.Name, w.ClientConfig.CABundle, secret.Data["ca.crt"])
		}
	}
}

// process is a program of the chart that runs outside of a pod.
type process struct {
	health, metrics string
	// addr is where a webhook takes reviews.
	addr string
	log  *output
	// stop ends it, and waits until it has.
	stop func()
}

// startDeployment runs the program of a Deployment of the chart, with its arguments and its service account, which
// has the same name. It returns when the program is ready. policy is a file.
func (f *fixture) startDeployment(t *testing.T, name string, all objects, policy string, environment ...string) *process {
	t.Helper()
	kubeconfig, err := f.KubeconfigFor(t.Context(), namespace, name)
	testkit.Must(t, err)
	p := &process{health: testkit.FreeAddr(t), metrics: testkit.FreeAddr(t)}
	args := podOf(t, all.get(t, "Deployment", name)).Containers[0].Args
	args = append(
		args,
		"--policy="+policy,
		"--kubeconfig="+kubeconfig,
		"--health-addr="+p.health,
		"--metrics-addr="+p.metrics,
	)
	if args[0] == "webhook" {
		p.addr = testkit.FreeAddr(t)
		args = append(args, "--addr="+p.addr, "--drain-delay=0s")
	}
	p.log, p.stop = runWith(t, environment, binary(t), args...)
	p.ready(t)
	return p
}

func (p *process) ready(t *testing.T) {
	t.Helper()
	testkit.EventuallyEmpty(t, func() string { return p.log.under(answers(t, "http://"+p.health+"/readyz", "ok")) })
}

// shows waits for lines of the metrics.
func (p *process) shows(t *testing.T, lines ...string) {
	t.Helper()
	for _, line := range lines {
		testkit.EventuallyEmpty(t, func() string { return p.log.under(answers(t, "http://"+p.metrics+"/metrics", line)) })
	}
}

// startAWS starts AWS's double with the account and the workspace of [managed], where the cluster's issuer is known. It
// returns the configuration of the account's administrator, and the environment of a program that acts for it.
func (f *fixture) startAWS(t *testing.T) (admin aws.Config, environment []string) {
	t.Helper()
	cloud := awstest.Start(t, awstest.Options{})
	_, err := cloud.RegisterIssuer(f.Issuer, f.OIDC(), awstest.PublicCA)
	testkit.Must(t, err)
	account := cloud.Account("111122223333")
	_, err = account.PutManagedPolicy(
		"boundary", `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"aps:RemoteWrite","Resource":"*"}}`,
	)
	testkit.Must(t, err)
	account.AddWorkspace("eu-west-1", "ws-0001")
	credentials := account.AdminCredentials()
	environment = append(cloud.Environ(), "AWS_EC2_METADATA_DISABLED=true")
	return cloud.Config(credentials, "eu-west-1"), append(environment, credentials.Environ()...)
}

// binary is ampbridge as it stands here.
func binary(t *testing.T) string {
	t.Helper()
	return tools.Build(t, "github.com/ampbridge/ampbridge/cmd/ampbridge")
}

// run starts a program that ends with the test, well.
func run(t *testing.T, program string, args ...string) *output {
	t.Helper()
	log, _ := runWith(t, nil, program, args...)
	return log
}

func runWith(t *testing.T, environment []string, program string, args ...string) (log *output, stop func()) {
	t.Helper()
	log = &output{}
	cmd := exec.Command(program, args...)
	cmd.Env = append([]string{"HOME=" + t.TempDir()}, environment...)
	cmd.Stdout, cmd.Stderr = log, log
	testkit.Must(t, cmd.Start())
	stop = sync.OnceFunc(func() {
		testkit.Must(t, cmd.Process.Signal(syscall.SIGTERM))
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s %s: %v\n%s", program, strings.Join(args, " "), err, log)
		}
	})
	t.Cleanup(stop)
	return log, stop
}

// output keeps what a program writes.
type output struct{ testkit.Buffer }

// under returns a complaint with the output, or "" if there is none.
func (o *output) under(complaint string) string {
	if complaint == "" {
		return ""
	}
	return complaint + "\n" + o.String()
}

// answers complains while the URL does not answer with the text.
func answers(t *testing.T, url, want string) string {
	t.Helper()
	body, err := testkit.Request(t.Context(), http.MethodGet, url)
	if err != nil {
		return err.Error()
	}
	if !strings.Contains(body, want) {
		return "no " + want + " in\n" + body
	}
	return ""
}
