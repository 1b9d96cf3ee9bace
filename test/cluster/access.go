package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

const (
	discoveryPath = "/.well-known/openid-configuration"
	jwksPath      = "/openid/v1/jwks"
	// kubeconfigTokenSeconds is the lifetime of the token that KubeconfigFor writes.
	kubeconfigTokenSeconds = int64(24 * 60 * 60)
	namespaceTimeout       = time.Minute
)

// Token requests a token of the service account with the audience from the API server, as the kubelet does
// for a projected volume. Kubernetes refuses a lifetime below 600 seconds. With a pod, as the API server
// returned it, the token is bound to that pod and names it in its claims. An empty audience means the API
// server's own, which is the issuer.
func (c *Cluster) Token(
	ctx context.Context,
	namespace, serviceAccount, audience string,
	expirationSeconds int64,
	pod ...*corev1.Pod,
) (string, error) {
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &expirationSeconds}}
	if audience != "" {
		request.Spec.Audiences = []string{audience}
	}
	if len(pod) > 0 {
		request.Spec.BoundObjectRef = &authenticationv1.BoundObjectReference{
			APIVersion: "v1", Kind: "Pod", Name: pod[0].Name, UID: pod[0].UID,
		}
	}
	answer, err := c.client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, serviceAccount, request, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("cluster: token of service account %s/%s: %w", namespace, serviceAccount, err)
	}
	return answer.Status.Token, nil
}

// KubeconfigFor writes a kubeconfig file with a token of the service account and returns the file's path. A
// process with this file has exactly that account's permissions. The token is valid for a day.
func (c *Cluster) KubeconfigFor(ctx context.Context, namespace, serviceAccount string) (string, error) {
	token, err := c.Token(ctx, namespace, serviceAccount, "", kubeconfigTokenSeconds)
	if err != nil {
		return "", err
	}
	config := c.Config()
	config.BearerToken = token
	path := filepath.Join(c.Dir, namespace+"."+serviceAccount+".kubeconfig")
	return path, writeKubeconfig(path, config)
}

// As returns the client configuration of a service account that exists.
func (c *Cluster) As(ctx context.Context, namespace, serviceAccount string) (*rest.Config, error) {
	file, err := c.KubeconfigFor(ctx, namespace, serviceAccount)
	if err != nil {
		return nil, err
	}
	config, err := clientcmd.BuildConfigFromFlags("", file)
	if err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	return config, nil
}

// ServiceAccount creates a service account in a namespace that exists.
func (c *Cluster) ServiceAccount(ctx context.Context, namespace, name string) error {
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if _, err := c.client.CoreV1().ServiceAccounts(namespace).Create(ctx, account, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	return nil
}

// Rights are the RBAC rules of a service account: in all namespaces, and in its own.
type Rights struct{ Cluster, Namespace []rbacv1.PolicyRule }

// Identity creates a service account that has these rights and no others. Its roles
// and bindings have its name.
func (c *Cluster) Identity(ctx context.Context, namespace, name string, rights Rights) error {
	meta, client := metav1.ObjectMeta{Name: name}, c.client.RbacV1()
	subjects := []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: name}}
	errs := []error{c.ServiceAccount(ctx, namespace, name)}
	if rights.Cluster != nil {
		_, roleErr := client.ClusterRoles().Create(ctx, &rbacv1.ClusterRole{ObjectMeta: meta, Rules: rights.Cluster}, metav1.CreateOptions{})
		_, bindErr := client.ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
			ObjectMeta: meta, Subjects: subjects, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
		}, metav1.CreateOptions{})
		errs = append(errs, roleErr, bindErr)
	}
	if rights.Namespace != nil {
		_, roleErr := client.Roles(namespace).Create(ctx, &rbacv1.Role{ObjectMeta: meta, Rules: rights.Namespace}, metav1.CreateOptions{})
		_, bindErr := client.RoleBindings(namespace).Create(ctx, &rbacv1.RoleBinding{
			ObjectMeta: meta, Subjects: subjects, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name},
		}, metav1.CreateOptions{})
		errs = append(errs, roleErr, bindErr)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	return nil
}

// Endpoint makes an address, host and port, the endpoint of a Service. A cluster
// without nodes has no others. The EndpointSlice has the endpoint's name.
func (c *Cluster) Endpoint(ctx context.Context, namespace, name, service, portName, addr string) error {
	at, err := netip.ParseAddrPort(addr)
	if err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: service}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints: []discoveryv1.Endpoint{
			{Addresses: []string{at.Addr().String()}, Conditions: discoveryv1.EndpointConditions{Ready: new(true)}},
		},
		Ports: []discoveryv1.EndpointPort{{Name: &portName, Port: new(int32(at.Port()))}},
	}
	if _, err := c.client.DiscoveryV1().EndpointSlices(namespace).Create(ctx, slice, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	return nil
}

func writeKubeconfig(path string, config *rest.Config) error {
	const name = "ampbridge-test"
	kubeconfig := clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{name: {Server: config.Host, CertificateAuthorityData: config.CAData}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{name: {Token: config.BearerToken}},
		Contexts:       map[string]*clientcmdapi.Context{name: {Cluster: name, AuthInfo: name}},
		CurrentContext: name,
	}
	if err := clientcmd.WriteToFile(kubeconfig, path); err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	return nil
}

// Namespace creates the namespace and waits until it has what pods need: the service account "default" and
// the ConfigMap kube-root-ca.crt. If the namespace exists already, it returns an error.
func (c *Cluster) Namespace(ctx context.Context, name string, labels map[string]string) error {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
	if _, err := c.client.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	if c.rootCA != nil {
		return c.furnish(ctx, name)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, namespaceTimeout, fmt.Errorf("not within %s", namespaceTimeout))
	defer cancel()
	err := c.waitUntil(ctx, "namespace "+name+" is furnished", func(ctx context.Context) error {
		return c.namespaceReady(ctx, name)
	})
	if err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	return nil
}

// furnish creates what the controllers would create in a namespace.
func (c *Cluster) furnish(ctx context.Context, namespace string) error {
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
	_, accountErr := c.client.CoreV1().ServiceAccounts(namespace).Create(ctx, account, metav1.CreateOptions{})
	root := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "kube-root-ca.crt"}, Data: map[string]string{"ca.crt": string(c.rootCA)}}
	_, rootErr := c.client.CoreV1().ConfigMaps(namespace).Create(ctx, root, metav1.CreateOptions{})
	if err := errors.Join(accountErr, rootErr); err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	return nil
}

func (c *Cluster) namespaceReady(ctx context.Context, name string) error {
	_, accountErr := c.client.CoreV1().ServiceAccounts(name).Get(ctx, "default", metav1.GetOptions{})
	_, rootErr := c.client.CoreV1().ConfigMaps(name).Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
	return errors.Join(accountErr, rootErr)
}

// Metrics returns the API server's own metrics in Prometheus's text format. For example,
// apiserver_admission_webhook_request_total counts webhook calls.
func (c *Cluster) Metrics(ctx context.Context) (string, error) {
	body, err := c.get(ctx, "/metrics")
	if err != nil {
		return "", fmt.Errorf("cluster: %w", err)
	}
	return string(body), nil
}

// OIDC serves the API server's discovery document and keys, for a test server that has the issuer's host
// name. It uses only the end of a request's path, so the issuer can have any prefix; other paths are not
// found. It reads from the API server as the administrator.
func (c *Cluster) OIDC() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			http.Error(w, "only GET and HEAD", http.StatusMethodNotAllowed)
			return
		}
		for path, contentType := range map[string]string{discoveryPath: "application/json", jwksPath: "application/jwk-set+json"} {
			if !strings.HasSuffix(r.URL.Path, path) {
				continue
			}
			body, err := c.get(r.Context(), path)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadGateway)
				return
			}
			w.Header().Set("Content-Type", contentType)
			_, _ = w.Write(body) // an error means that the client has disconnected
			return
		}
		http.NotFound(w, r)
	})
}

func (c *Cluster) get(ctx context.Context, path string) ([]byte, error) {
	body, err := c.client.Discovery().RESTClient().Get().AbsPath(path).Do(ctx).Raw()
	if err != nil {
		return nil, fmt.Errorf("GET %s: %w", path, err)
	}
	return body, nil
}
