package env

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ampbridge/ampbridge/test/servingcert"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/webhook"
	"github.com/ampbridge/ampbridge/webhook/breaker"
	"github.com/ampbridge/ampbridge/webhook/registration"
)

// StartWebhook runs `ampbridge webhook` as its own process and registers it in the API server. The process
// has only the permissions of its own service account.
func (e *Env) StartWebhook(ctx context.Context) error {
	if e.PolicyFile == "" {
		if err := e.SetPolicy(e.Policy()); err != nil {
			return err
		}
	}
	kubeconfig, err := e.webhookAccount(ctx)
	if err != nil {
		return err
	}
	certificates := filepath.Join(e.dir, "webhook-certificates")
	if err := os.Mkdir(certificates, 0o700); err != nil {
		return err
	}
	ca, err := servingcert.Write(certificates, "127.0.0.1")
	if err != nil {
		return err
	}
	var ports [3]int
	for i := range ports {
		if ports[i], err = testkit.UnusedPort(); err != nil {
			return err
		}
	}
	addr := func(i int) string { return fmt.Sprintf("127.0.0.1:%d", ports[i]) }
	e.MetricsURL = "http://" + addr(2) + "/metrics"
	log, err := os.Create(filepath.Join(e.dir, "webhook.log"))
	if err != nil {
		return err
	}
	cmd := exec.Command(e.tools["ampbridge"], "webhook", "--policy", e.PolicyFile, "--cert-dir", certificates,
		"--addr", addr(0), "--health-addr", addr(1), "--metrics-addr", addr(2), "--image", SidecarImage,
		"--kubeconfig", kubeconfig, "--system-namespace", SystemNamespace, "--drain-delay", "0s")
	cmd.Env = []string{"HOME=" + e.dir}
	cmd.Stdout, cmd.Stderr = log, log
	// The webhook ends with the program that started it, also if that program is killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return errors.Join(err, log.Close())
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	e.onClose(func() error {
		stopped := cmd.Process.Signal(syscall.SIGTERM)
		if errors.Is(stopped, os.ErrProcessDone) {
			stopped = nil
		}
		return errors.Join(stopped, <-exited, log.Close())
	})
	if err := e.waitReady(ctx, "http://"+addr(1)+"/readyz", exited, log.Name()); err != nil {
		return err
	}
	base := "https://" + addr(0)
	object, err := registration.New(registration.Options{
		ClientConfig: admissionv1.WebhookClientConfig{URL: &base, CABundle: ca}, ExcludedNamespaces: []string{SystemNamespace},
	})
	if err != nil {
		return err
	}
	if _, err := e.Cluster.Client().AdmissionregistrationV1().MutatingWebhookConfigurations().Create(
		ctx,
		object,
		metav1.CreateOptions{},
	); err != nil {
		return err
	}
	return e.waitAdmission(ctx)
}

// WebhookLog returns what the webhook has written so far.
func (e *Env) WebhookLog() (string, error) {
	log, err := os.ReadFile(filepath.Join(e.dir, "webhook.log"))
	return string(log), err
}

// webhookAccount gives the webhook the permissions that it needs. It can read three kinds of objects and the
// circuit breaker's ConfigMap, and store the last good policy in a ConfigMap, which webhookAccount creates.
func (e *Env) webhookAccount(ctx context.Context) (kubeconfig string, err error) {
	const name = "ampbridge-webhook"
	client := e.Cluster.Client()
	if err := e.Cluster.Namespace(ctx, SystemNamespace, nil); err != nil {
		return "", err
	}
	if err := e.CreateServiceAccount(ctx, SystemNamespace, name); err != nil {
		return "", err
	}
	meta := metav1.ObjectMeta{Name: name}
	if _, err := client.RbacV1().ClusterRoles().Create(ctx, &rbacv1.ClusterRole{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"serviceaccounts"}, Verbs: []string{"get"}},
		{APIGroups: []string{""}, Resources: []string{"limitranges", "resourcequotas"}, Verbs: []string{"list"}},
	}}, metav1.CreateOptions{}); err != nil {
		return "", err
	}
	if _, err := client.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: meta,
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: SystemNamespace, Name: name}},
	}, metav1.CreateOptions{}); err != nil {
		return "", err
	}
	accepted := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: webhook.AcceptedConfigMap}}
	if _, err := client.CoreV1().ConfigMaps(SystemNamespace).Create(ctx, accepted, metav1.CreateOptions{}); err != nil {
		return "", err
	}
	if _, err := client.RbacV1().Roles(SystemNamespace).Create(ctx, &rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: []string{breaker.ConfigMap}, Verbs: []string{"get"}},
		{
			APIGroups:     []string{""},
			Resources:     []string{"configmaps"},
			ResourceNames: []string{webhook.AcceptedConfigMap},
			Verbs:         []string{"get", "update"},
		},
	}}, metav1.CreateOptions{}); err != nil {
		return "", err
	}
	if _, err := client.RbacV1().RoleBindings(SystemNamespace).Create(ctx, &rbacv1.RoleBinding{
		ObjectMeta: meta,
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: SystemNamespace, Name: name}},
	}, metav1.CreateOptions{}); err != nil {
		return "", err
	}
	return e.Cluster.KubeconfigFor(ctx, SystemNamespace, name)
}

func (e *Env) waitReady(ctx context.Context, url string, exited chan error, log string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		if response, err := http.DefaultClient.Do(request); err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case err := <-exited:
			exited <- err
			text, _ := os.ReadFile(log)
			return fmt.Errorf("ampbridge webhook ended: %w\n%s", err, text)
		case <-ctx.Done():
			text, _ := os.ReadFile(log)
			return fmt.Errorf("ampbridge webhook is not ready after a minute\n%s", text)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// waitAdmission returns when the API server calls the webhook. The API server reads the registration through
// a watch; until then it admits pods without injection.
func (e *Env) waitAdmission(ctx context.Context) error {
	pod, err := Chart{Name: "is-the-webhook-registered"}.pod()
	if err != nil {
		return err
	}
	deadline := time.Now().Add(time.Minute)
	for time.Now().Before(deadline) {
		admitted, err := e.Cluster.Client().CoreV1().Pods(
			Namespace,
		).Create(
			ctx,
			pod,
			metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}},
		)
		if err != nil {
			return err
		}
		if Injected(admitted) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	log, _ := e.WebhookLog()
	return fmt.Errorf("the API server does not call the webhook, or it does not inject\n%s", log)
}

// Injected reports whether a pod has the config sidecar.
func Injected(pod *corev1.Pod) bool {
	for _, c := range pod.Spec.InitContainers {
		if c.Name == "ampbridge-config" {
			return true
		}
	}
	return false
}
