package admission_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os/exec"
	"sync"
	"syscall"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ampbridge/ampbridge/test/servingcert"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/tools"
	"github.com/ampbridge/ampbridge/test/webhooktest"
	"github.com/ampbridge/ampbridge/webhook/registration"
)

// process is `ampbridge webhook`, in its own cgroup if the test can create one.
type process struct {
	pid          int
	group        cgroup
	roots        *tls.Config
	addr         string
	observedAddr string
	health       string
	stop         func()
}

// install is what the processes of one test share.
type install struct {
	binary, certs, kubeconfig string
	ca                        []byte
}

// install builds ampbridge and creates the webhook's certificate.
func (f *fixture) install(t *testing.T) *install {
	t.Helper()
	i := &install{binary: tools.Build(t, "github.com/ampbridge/ampbridge/cmd/ampbridge"), certs: t.TempDir()}
	var err error
	i.ca, err = servingcert.Write(i.certs, "127.0.0.1")
	testkit.Must(t, err)
	i.kubeconfig, err = f.KubeconfigFor(t.Context(), home, "webhook")
	testkit.Must(t, err)
	return i
}

// start starts a webhook, which may fail to become ready.
func (f *fixture) start(t *testing.T, i *install) *process {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(i.ca)
	p := &process{
		addr: testkit.FreeAddr(t), observedAddr: testkit.FreeAddr(t), health: testkit.FreeAddr(t),
		roots: &tls.Config{RootCAs: roots, NextProtos: []string{"http/1.1"}}, group: newCgroup(t, containerLimit),
	}
	cmd := exec.Command(i.binary, "webhook", "--policy", f.policyFile, "--cert-dir", i.certs, "--addr", p.addr, "--health-addr", p.health,
		"--metrics-addr", p.observedAddr, "--image", image, "--kubeconfig", i.kubeconfig, "--system-namespace", home, "--drain-delay", "0s")
	cmd.Env = []string{"HOME=" + t.TempDir()}
	if p.group != "" {
		// In a container the process finds the limit in its cgroup. Here it would find the machine's memory.
		cmd.Env = append(cmd.Env, fmt.Sprintf("GOMEMLIMIT=%d", containerLimit/10*8))
	}
	cmd.Stdout, cmd.Stderr = f.log, f.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	testkit.Must(t, cmd.Start())
	p.pid = cmd.Process.Pid
	p.stop = sync.OnceFunc(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // an error means that it has ended; Wait returns the reason
		if err := cmd.Wait(); err != nil {
			t.Errorf("the webhook did not survive: %v", err)
		}
		p.group.remove(t)
	})
	t.Cleanup(p.stop)
	p.group.add(t, p.pid)
	return p
}

func (p *process) ready(t *testing.T) {
	t.Helper()
	testkit.Eventually(t, "the webhook is ready", func() bool {
		_, err := testkit.Get(t.Context(), "http://"+p.health+"/readyz")
		return err == nil
	})
}

// startProcess starts a webhook and registers it.
func (f *fixture) startProcess(t *testing.T) *process {
	t.Helper()
	i := f.install(t)
	p := f.start(t, i)
	p.ready(t)
	f.register(t, p, i)
	return p
}

func (f *fixture) register(t *testing.T, p *process, i *install) {
	t.Helper()
	options := registration.Options{
		ClientConfig:       admissionv1.WebhookClientConfig{URL: new("https://" + p.addr), CABundle: i.ca},
		ExcludedNamespaces: []string{home},
	}
	configuration, err := registration.New(options)
	testkit.Must(t, err)
	webhooktest.Create(t, f.Cluster, configuration)
	review, err := registration.NewPolicy(options, home, "ampbridge-policy")
	testkit.Must(t, err)
	_, err = f.Client().AdmissionregistrationV1().ValidatingWebhookConfigurations().Create(t.Context(), review, metav1.CreateOptions{})
	testkit.Must(t, err)
}

// scrape returns the webhook's metrics.
func (p *process) scrape(t *testing.T) string {
	t.Helper()
	text, err := testkit.Get(t.Context(), "http://"+p.observedAddr+"/metrics")
	testkit.Must(t, err)
	return text
}

// usage returns the memory that the webhook has used at its peak.
func (p *process) usage(t *testing.T) string {
	t.Helper()
	text := fmt.Sprintf("peak of the process %.1f MB", float64(testkit.ProcessMemory(t, p.pid, "VmHWM"))/1e6)
	if used, there := p.group.used(t); there {
		text += fmt.Sprintf(", of its cgroup %.1f MB", float64(used)/1e6)
	}
	return text
}
