package doctor

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/ampbridge/ampbridge/cmd/internal/kube"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/check"
	"github.com/ampbridge/ampbridge/webhook/registration"
)

const (
	// dialTimeout is short, because the webhook is often not reachable from here.
	dialTimeout = 2 * time.Second
	// expiresSoon is the remaining lifetime below which a certificate is a warning.
	expiresSoon = 7 * 24 * time.Hour
	// defaultPort is the port of a Service that a registration without a port calls.
	defaultPort int32 = 443
	// certificateVolume is the chart's volume with a certificate that the webhook does not write.
	certificateVolume = "tls"
	// certificateSuffix ends the name of the Secret with the certificate that the webhook writes. The
	// start is the Service's name.
	certificateSuffix = "-tls"
)

// reinstall is the fix that restores the objects of the chart.
var reinstall = check.NewFix("install the chart again: it registers the webhook")

// checkWebhook checks how the API server would call the webhook.
func (x *runner) checkWebhook(ctx context.Context) {
	object, f := x.registration(ctx)
	if object == nil || len(object.Webhooks) == 0 {
		x.checks.Run(check.Registration, check.About{}, func() check.Finding { return f })
		x.checks.Skip(check.About{}, "the registration could not be read", check.Endpoints, check.Certificate)
		return
	}
	var some []check.Finding
	for _, s := range x.subjects {
		if s.entry() != "" { // the namespace check reports a missing label
			some = append(some, registered(object, s, x.tokenSource()).For(check.Registration, s.about))
		}
	}
	failed := slices.ContainsFunc(some, func(f check.Finding) bool { return f.Status == check.Fail })
	if failed && slices.ContainsFunc(some, func(f check.Finding) bool { return f.Status != check.Fail }) {
		// The Service and the certificate are checked first: a failed registration would skip
		// them, and the registration is right for some of the namespaces.
		x.checkServing(ctx, object)
		x.checks.Add(some...)
		return
	}
	for _, one := range some {
		if one.Status.Worse(f.Status) {
			f = one
		}
	}
	x.checks.Run(check.Registration, check.About{}, func() check.Finding { return f })
	x.checkServing(ctx, object)
}

// checkServing checks the Service and the certificate of the entries that are called.
func (x *runner) checkServing(ctx context.Context, object *admissionv1.MutatingWebhookConfiguration) {
	entries := x.entriesOf(object)
	each := func(probe func(context.Context, admissionv1.WebhookClientConfig) check.Finding) check.Finding {
		var worst check.Finding
		for i, w := range entries {
			if f := probe(ctx, w.ClientConfig); i == 0 || f.Status.Worse(worst.Status) {
				worst = f
				if len(entries) > 1 && f.Status != check.Pass {
					worst.Message = "entry " + w.Name + ": " + f.Message
				}
			}
		}
		return worst
	}
	x.checks.Run(check.Endpoints, check.About{}, func() check.Finding { return each(x.endpoints) })
	x.checks.Run(check.Certificate, check.About{}, func() check.Finding { return each(x.certificate) })
}

// entriesOf returns the entries by which the API server calls the webhook for the pods of
// the subjects; without subjects, the first one.
func (x *runner) entriesOf(object *admissionv1.MutatingWebhookConfiguration) []admissionv1.MutatingWebhook {
	var entries []admissionv1.MutatingWebhook
	for _, w := range object.Webhooks {
		if slices.ContainsFunc(x.subjects, func(s *subject) bool { return w.Name == s.entry() }) {
			entries = append(entries, w)
		}
	}
	if len(entries) == 0 {
		return object.Webhooks[:1]
	}
	return entries
}

// entry returns the name of the registration's entry for the subject's pods; empty: its
// namespace has no label that selects one.
func (s *subject) entry() string {
	injection := policy.Injection(s.labels[policy.LabelInjection])
	if injection != policy.InjectionEnabled && injection != policy.InjectionAnnotated {
		return ""
	}
	return registration.EntryName("pods", injection)
}

func (x *runner) registration(ctx context.Context) (*admissionv1.MutatingWebhookConfiguration, check.Finding) {
	object, err := x.cluster.client.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(
		ctx,
		registration.DefaultName,
		metav1.GetOptions{},
	)
	switch {
	case apierrors.IsNotFound(err):
		return nil, failed(reinstall, "there is no MutatingWebhookConfiguration %s: nothing is injected", registration.DefaultName)
	case err != nil:
		return nil, skipped("the MutatingWebhookConfiguration %s cannot be read: %v", registration.DefaultName, err)
	}
	return object, passed("MutatingWebhookConfiguration %s", registration.DefaultName)
}

// registered judges whether the registration selects the Prometheus pods of a subject.
func registered(object *admissionv1.MutatingWebhookConfiguration, s *subject, tokenSource string) check.Finding {
	entry := s.entry()
	i := slices.IndexFunc(object.Webhooks, func(w admissionv1.MutatingWebhook) bool { return w.Name == entry })
	if i < 0 {
		return failed(reinstall, "it has no entry %s, which namespace %s needs", entry, s.Namespace)
	}
	w := object.Webhooks[i]
	path := registration.PodPath + s.labels[policy.LabelInjection]
	switch {
	case !selects(w.NamespaceSelector, s.labels):
		return failed(reinstall, "its entry %s does not select namespace %s: check its namespaceSelector", entry, s.Namespace)
	case !createsPods(w):
		return failed(reinstall, "its entry %s has no rule for the creation of pods", entry)
	case !selects(w.ObjectSelector, samplePod(s.Subject, tokenSource).Labels):
		return failed(reinstall, "its entry %s does not select Prometheus pods: check its objectSelector", entry)
	case !strings.HasSuffix(pathOf(w.ClientConfig), path):
		return failed(reinstall, "its entry %s calls the path %q, which must end in %s", entry, pathOf(w.ClientConfig), path)
	}
	var further []string
	for _, c := range w.MatchConditions {
		if c.Expression != registration.CanBePrometheus {
			further = append(further, fmt.Sprintf("%s of entry %s (%s)", c.Name, entry, c.Expression))
		}
	}
	if len(further) > 0 {
		f := warned(reinstall, "the registration has match conditions that the chart does not set: %s", strings.Join(further, ", "))
		f.Proof = check.Injection
		return f
	}
	return passed("MutatingWebhookConfiguration %s", registration.DefaultName)
}

// tokenSource returns token.source of the policy; empty: the policy is not known.
func (x *runner) tokenSource() string {
	if x.policy == nil {
		return ""
	}
	return x.policy.Token.Source
}

// pathOf returns the path that the API server calls.
func pathOf(c admissionv1.WebhookClientConfig) string {
	if c.Service == nil {
		u, err := url.Parse(*c.URL)
		if err != nil {
			return *c.URL
		}
		return u.Path
	}
	if c.Service.Path == nil {
		return ""
	}
	return *c.Service.Path
}

func selects(selector *metav1.LabelSelector, set map[string]string) bool {
	s, err := metav1.LabelSelectorAsSelector(selector)
	// A missing or empty selector selects everything.
	return err == nil && (selector == nil || s.Matches(labels.Set(set)))
}

// createsPods reports whether a rule of the entry covers the creation of pods.
func createsPods(w admissionv1.MutatingWebhook) bool {
	has := func(list []string, names ...string) bool {
		return slices.ContainsFunc(list, func(item string) bool { return item == "*" || slices.Contains(names, item) })
	}
	return slices.ContainsFunc(w.Rules, func(r admissionv1.RuleWithOperations) bool {
		return has(r.APIGroups, "") && has(r.APIVersions, "v1") && has(r.Resources, "pods", "pods/*", "*/*") &&
			(r.Scope == nil || *r.Scope != admissionv1.ClusterScope) &&
			(slices.Contains(r.Operations, admissionv1.Create) || slices.Contains(r.Operations, admissionv1.OperationAll))
	})
}

func (x *runner) endpoints(ctx context.Context, c admissionv1.WebhookClientConfig) check.Finding {
	if c.Service == nil {
		return passed("registered by URL, %s", host(c))
	}
	service := c.Service.Namespace + "/" + c.Service.Name
	pods := check.Command{"kubectl", "get", "pods", "--namespace", c.Service.Namespace, "--selector", kube.WebhookSelector}
	object, err := x.cluster.client.CoreV1().Services(c.Service.Namespace).Get(ctx, c.Service.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return failed(reinstall, "the Service %s does not exist", service)
	}
	port := defaultPort
	if c.Service.Port != nil {
		port = *c.Service.Port
	}
	if err == nil && !slices.ContainsFunc(object.Spec.Ports, func(p corev1.ServicePort) bool { return p.Port == port }) {
		return failed(reinstall, "the Service %s has no port %d, which the registration names", service, port)
	}
	list, listErr := x.cluster.client.DiscoveryV1().EndpointSlices(
		c.Service.Namespace,
	).List(
		ctx,
		metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + c.Service.Name},
	)
	if err := errors.Join(err, listErr); err != nil {
		return skipped("the endpoints of %s cannot be read: %v", service, err)
	}
	ready, waiting := 0, 0
	for _, slice := range list.Items {
		for _, e := range slice.Endpoints {
			if e.Conditions.Ready == nil || *e.Conditions.Ready {
				ready += len(e.Addresses)
			} else {
				waiting += len(e.Addresses)
			}
		}
	}
	switch {
	case ready > 0:
		return passed("%d ready behind %s", ready, service)
	case waiting > 0:
		return failed(
			check.NewFix("find out why the webhook's pods are not ready", pods),
			"none of the %d pods behind %s is ready: nothing is injected",
			waiting,
			service,
		)
	}
	return failed(check.NewFix("find out why the webhook has no pods", pods), "no pod is behind %s: nothing is injected", service)
}

// host returns the name that the API server expects in the certificate.
func host(c admissionv1.WebhookClientConfig) string {
	if c.Service != nil {
		return c.Service.Name + "." + c.Service.Namespace + ".svc"
	}
	u, err := url.Parse(*c.URL)
	if err != nil {
		return *c.URL
	}
	return u.Hostname()
}

// certificate verifies the webhook's certificate with the CA bundle. It reads the
// certificate from a connection if possible, else from the Secret.
func (x *runner) certificate(ctx context.Context, c admissionv1.WebhookClientConfig) check.Finding {
	renew := check.NewFix(
		"restart the webhook, so that it (or cert-manager) writes the bundle again; if the certificate is your own, pass its CA to the chart",
	)
	if c.Service != nil {
		renew.Commands = []check.Command{
			{"kubectl", "rollout", "restart", "--namespace", c.Service.Namespace, "deployment/" + c.Service.Name},
		}
	}
	roots := x509.NewCertPool()
	if len(c.CABundle) == 0 {
		return failed(renew, "the registration has no CA bundle: the API server trusts no certificate of the webhook")
	}
	if !roots.AppendCertsFromPEM(c.CABundle) {
		return failed(renew, "the registration's CA bundle contains no certificate")
	}
	chain, where, err := x.served(ctx, c)
	if err != nil {
		return skipped("%v; the dry run below shows whether the certificate is right", err)
	}
	intermediates := x509.NewCertPool()
	for _, cert := range chain[1:] {
		intermediates.AddCert(cert)
	}
	leaf, now := chain[0], x.Now()
	if now.After(leaf.NotAfter) {
		return failed(renew, "the certificate %s expired at %s", where, leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	if _, err := leaf.Verify(
		x509.VerifyOptions{DNSName: host(c), Roots: roots, Intermediates: intermediates, CurrentTime: now},
	); err != nil {
		return failed(renew, "the CA bundle does not verify the certificate %s: %v", where, err)
	}
	if left := leaf.NotAfter.Sub(now); left < expiresSoon && left < leaf.NotAfter.Sub(leaf.NotBefore)/10 {
		return warned(renew, "the certificate %s expires in %s, and was not renewed", where, check.Span(left))
	}
	return passed("%s, until %s", where, leaf.NotAfter.UTC().Format(time.DateOnly))
}

// served returns the certificate chain of the webhook, and its source.
func (x *runner) served(ctx context.Context, c admissionv1.WebhookClientConfig) ([]*x509.Certificate, string, error) {
	address := host(c)
	port := "443"
	if c.Service == nil {
		u, err := url.Parse(*c.URL)
		if err != nil {
			return nil, "", err
		}
		if u.Port() != "" {
			port = u.Port()
		}
	} else if c.Service.Port != nil {
		port = fmt.Sprint(*c.Service.Port)
	}
	// Outside the cluster a Service's name has no address, or the address of another host.
	if c.Service == nil || os.Getenv("KUBERNETES_SERVICE_HOST") != "" {
		chain, err := dial(ctx, net.JoinHostPort(address, port), address)
		if err == nil {
			return chain, "served at " + net.JoinHostPort(address, port), nil
		}
		if c.Service == nil {
			return nil, "", fmt.Errorf("the webhook's certificate cannot be read: %w", err)
		}
	}
	name := x.servingSecret(ctx, c)
	secret, err := x.cluster.client.CoreV1().Secrets(c.Service.Namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, "", fmt.Errorf("the webhook cannot be reached from here, and the Secret %s cannot be read: %w", name, err)
	}
	chain, err := certificates(secret.Data["tls.crt"])
	if err != nil {
		return nil, "", fmt.Errorf("the Secret %s: %w", name, err)
	}
	return chain, "in Secret " + c.Service.Namespace + "/" + name, nil
}

// servingSecret returns the name of the Secret with the webhook's certificate: the one that
// its pods mount, or else the one that the webhook writes itself.
func (x *runner) servingSecret(ctx context.Context, c admissionv1.WebhookClientConfig) string {
	pods, err := x.cluster.client.CoreV1().Pods(c.Service.Namespace).List(ctx, metav1.ListOptions{LabelSelector: kube.WebhookSelector})
	if err == nil {
		for _, pod := range pods.Items {
			for _, v := range pod.Spec.Volumes {
				if v.Name == certificateVolume && v.Secret != nil {
					return v.Secret.SecretName
				}
			}
		}
	}
	return c.Service.Name + certificateSuffix
}

// dial returns the certificate chain of a server, even if the chain is not trusted.
func dial(ctx context.Context, address, name string) ([]*x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	d := tls.Dialer{Config: &tls.Config{ServerName: name, MinVersion: tls.VersionTLS12}}
	conn, err := d.DialContext(ctx, "tcp", address)
	if chain := unverified(err); chain != nil {
		return chain, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates, nil
}

// unverified returns the certificate chain that failed the verification; nil: the error has
// another cause.
func unverified(err error) []*x509.Certificate {
	var refused *tls.CertificateVerificationError
	if !errors.As(err, &refused) {
		return nil
	}
	return refused.UnverifiedCertificates
}

func certificates(data []byte) ([]*x509.Certificate, error) {
	var chain []*x509.Certificate
	for data = bytes.TrimSpace(data); len(data) > 0; {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		chain = append(chain, cert)
	}
	if len(chain) == 0 {
		return nil, errors.New("tls.crt contains no certificate")
	}
	return chain, nil
}
