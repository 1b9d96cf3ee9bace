package cluster_test

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/ampbridge/ampbridge/test/cluster"
	"github.com/ampbridge/ampbridge/test/testkit"
)

const (
	namespace = "monitoring"
	audience  = "sts.amazonaws.com"
)

// The issuers differ in an important detail: AKS's issuer ends with a slash. Tokens must keep it, and URLs
// below the issuer must not double it.
func TestCluster(t *testing.T) {
	for _, test := range []struct {
		name, issuer, jwksURI string
		scheduler             bool
	}{
		{
			name:      "eks",
			issuer:    "https://oidc.eks.eu-west-1.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF",
			jwksURI:   "https://oidc.eks.eu-west-1.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF/openid/v1/jwks",
			scheduler: true,
		},
		{
			name:   "aks",
			issuer: "https://westeurope.oic.prod-aks.azure.com/11111111-2222-3333-4444-555555555555/66666666-7777-8888-9999-000000000000/",
			jwksURI: "https://westeurope.oic.prod-aks.azure.com/11111111-2222-3333-4444-555555555555/" +
				"66666666-7777-8888-9999-000000000000/openid/v1/jwks",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel() // two clusters run side by side
			c := cluster.Start(t, cluster.Options{Issuer: test.issuer, Scheduler: test.scheduler})
			testkit.Must(t, c.Namespace(t.Context(), namespace, map[string]string{"team": "a"}))
			t.Run("discovery", func(t *testing.T) { testDiscovery(t, c, test.issuer, test.jwksURI) })
			t.Run("anonymous discovery", func(t *testing.T) { testAnonymousDiscovery(t, c) })
			t.Run("token", func(t *testing.T) { testToken(t, c, test.issuer) })
			t.Run("limit range", func(t *testing.T) { testLimitRange(t, c) })
			t.Run("quota", func(t *testing.T) { testQuota(t, c) })
			t.Run("pod security", func(t *testing.T) { testPodSecurity(t, c) })
			t.Run("kubeconfig", func(t *testing.T) { testKubeconfig(t, c) })
			if test.scheduler {
				t.Run("scheduler", func(t *testing.T) { testScheduler(t, c) })
			}
			t.Run("webhook", func(t *testing.T) { testWebhook(t, c) }) // refuses all pods from here on
			t.Run("close", func(t *testing.T) { testClose(t, c) })
		})
	}
}

func testDiscovery(t *testing.T, c *cluster.Cluster, issuer, jwksURI string) {
	var document struct {
		Issuer     string   `json:"issuer"`
		JWKSURI    string   `json:"jwks_uri"`
		Algorithms []string `json:"id_token_signing_alg_values_supported"`
	}
	get(t, c, "/any/prefix/.well-known/openid-configuration", &document)
	if document.Issuer != issuer {
		t.Errorf("issuer: got %q, want %q", document.Issuer, issuer)
	}
	if document.JWKSURI != jwksURI {
		t.Errorf("jwks_uri: got %q, want %q", document.JWKSURI, jwksURI)
	}
	if len(document.Algorithms) != 1 || document.Algorithms[0] != "RS256" {
		t.Errorf("algorithms: got %q, want RS256, the one that AWS takes", document.Algorithms)
	}

	for _, test := range []struct {
		method, path string
		want         int
	}{
		{http.MethodGet, "/api/v1/secrets", http.StatusNotFound},
		{http.MethodPost, "/openid/v1/jwks", http.StatusMethodNotAllowed},
	} {
		w := httptest.NewRecorder()
		c.OIDC().ServeHTTP(w, httptest.NewRequest(test.method, test.path, nil))
		if w.Code != test.want {
			t.Errorf("%s %s: got %d, want %d", test.method, test.path, w.Code, test.want)
		}
	}
}

// In the clouds the document and the keys are public.
func testAnonymousDiscovery(t *testing.T, c *cluster.Cluster) {
	config := c.Config()
	config.BearerToken = ""
	client, err := kubernetes.NewForConfig(config)
	testkit.Must(t, err)
	for _, path := range []string{"/.well-known/openid-configuration", "/openid/v1/jwks"} {
		if err := client.Discovery().RESTClient().Get().AbsPath(path).Do(t.Context()).Error(); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	_, err = client.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{})
	if !apierrors.IsForbidden(err) {
		t.Errorf("listing pods without a name: got %v, want forbidden", err)
	}
}

func testToken(t *testing.T, c *cluster.Cluster, issuer string) {
	pods := c.Client().CoreV1().Pods(namespace)
	pod, err := pods.Create(t.Context(), newPod("bound"), metav1.CreateOptions{})
	testkit.Must(t, err)
	token, err := c.Token(t.Context(), namespace, "default", audience, 3600, pod)
	testkit.Must(t, err)

	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.RS256})
	testkit.Must(t, err)
	var keys jose.JSONWebKeySet
	get(t, c, "/openid/v1/jwks", &keys)
	found := keys.Key(parsed.Headers[0].KeyID)
	if len(found) != 1 {
		t.Fatalf("key %q: got %d of that name, want 1", parsed.Headers[0].KeyID, len(found))
	}
	var claims struct {
		jwt.Claims
		Kubernetes struct {
			Pod struct {
				Name string `json:"name"`
			} `json:"pod"`
		} `json:"kubernetes.io"`
	}
	if err := parsed.Claims(found[0].Key, &claims); err != nil {
		t.Fatalf("signature: %v", err)
	}
	if claims.Issuer != issuer {
		t.Errorf("iss: got %q, want %q", claims.Issuer, issuer)
	}
	if want := "system:serviceaccount:" + namespace + ":default"; claims.Subject != want {
		t.Errorf("sub: got %q, want %q", claims.Subject, want)
	}
	if len(claims.Audience) != 1 || claims.Audience[0] != audience {
		t.Errorf("aud: got %q, want %q", claims.Audience, audience)
	}
	if life := int64(*claims.Expiry - *claims.IssuedAt); life != 3600 {
		t.Errorf("exp - iat: got %d s, want 3600 s", life)
	}
	if claims.Kubernetes.Pod.Name != pod.Name {
		t.Errorf("bound pod: got %q, want %q", claims.Kubernetes.Pod.Name, pod.Name)
	}

	_, err = c.Token(t.Context(), namespace, "default", audience, 599)
	if !apierrors.IsInvalid(err) {
		t.Errorf("token of 599 s: got %v, want it refused as invalid", err)
	}
}

func testLimitRange(t *testing.T, c *cluster.Cluster) {
	const namespace = "limited"
	testkit.Must(t, c.Namespace(t.Context(), namespace, nil))
	_, err := c.Client().CoreV1().LimitRanges(namespace).Create(t.Context(), &corev1.LimitRange{
		ObjectMeta: metav1.ObjectMeta{Name: "minimum"},
		Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{
			Type: corev1.LimitTypeContainer,
			Min:  corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi")},
		}}},
	}, metav1.CreateOptions{})
	testkit.Must(t, err)
	pod := newPod("small")
	pod.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Mi")}
	eventuallyForbidden(t, c, namespace, pod, "minimum memory usage per Container is 64Mi")
}

// A quota is enforced only after kube-controller-manager has counted the usage.
func testQuota(t *testing.T, c *cluster.Cluster) {
	const namespace = "quota"
	testkit.Must(t, c.Namespace(t.Context(), namespace, nil))
	_, err := c.Client().CoreV1().ResourceQuotas(namespace).Create(t.Context(), &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "cpu"},
		Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{corev1.ResourceLimitsCPU: resource.MustParse("1")}},
	}, metav1.CreateOptions{})
	testkit.Must(t, err)
	eventuallyForbidden(t, c, namespace, newPod("unlimited"), "must specify limits.cpu")
}

func testPodSecurity(t *testing.T, c *cluster.Cluster) {
	const namespace = "restricted"
	testkit.Must(t, c.Namespace(t.Context(), namespace, map[string]string{"pod-security.kubernetes.io/enforce": "restricted"}))
	eventuallyForbidden(t, c, namespace, newPod("lax"), `violates PodSecurity "restricted:latest"`)
}

func testKubeconfig(t *testing.T, c *cluster.Cluster) {
	path, err := c.KubeconfigFor(t.Context(), namespace, "default")
	testkit.Must(t, err)
	for _, test := range []struct{ path, user string }{
		{c.Kubeconfig(), "admin"},
		{path, "system:serviceaccount:" + namespace + ":default"},
	} {
		info, err := os.Stat(test.path)
		testkit.Must(t, err)
		if mode := info.Mode().Perm(); mode != 0o600 {
			t.Errorf("%s: got mode %o, want 600", test.path, mode)
		}
		config, err := clientcmd.BuildConfigFromFlags("", test.path)
		testkit.Must(t, err)
		client, err := kubernetes.NewForConfig(config)
		testkit.Must(t, err)
		review, err := client.AuthenticationV1().SelfSubjectReviews().Create(t.Context(), newReview(), metav1.CreateOptions{})
		testkit.Must(t, err)
		if got := review.Status.UserInfo.Username; got != test.user {
			t.Errorf("%s: got user %q, want %q", test.path, got, test.user)
		}
	}
}

// A webhook is registered with the URL of a listener on loopback. The API server's metrics count its calls.
func testWebhook(t *testing.T, c *cluster.Cluster) {
	const name = "refuse.ampbridge.io"
	webhook := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review admissionv1.AdmissionReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		review.Response = &admissionv1.AdmissionResponse{UID: review.Request.UID, Result: &metav1.Status{
			Message: "refused by the webhook", Reason: metav1.StatusReasonForbidden, Code: http.StatusForbidden,
		}}
		if err := json.NewEncoder(w).Encode(review); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(webhook.Close)
	none := admissionregistrationv1.SideEffectClassNone
	_, err := c.Client().AdmissionregistrationV1().ValidatingWebhookConfigurations().Create(t.Context(),
		&admissionregistrationv1.ValidatingWebhookConfiguration{
			ObjectMeta: metav1.ObjectMeta{Name: "refuse"},
			Webhooks: []admissionregistrationv1.ValidatingWebhook{{
				Name: name,
				ClientConfig: admissionregistrationv1.WebhookClientConfig{
					URL:      &webhook.URL,
					CABundle: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: webhook.Certificate().Raw}),
				},
				Rules: []admissionregistrationv1.RuleWithOperations{
					{
						Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create},
						Rule: admissionregistrationv1.Rule{
							APIGroups:   []string{""},
							APIVersions: []string{"v1"},
							Resources:   []string{"pods"},
						},
					},
				},
				SideEffects:             &none,
				AdmissionReviewVersions: []string{"v1"},
			}},
		}, metav1.CreateOptions{})
	testkit.Must(t, err)
	eventuallyForbidden(t, c, namespace, newPod("refused"), "refused by the webhook")

	metrics, err := c.Metrics(t.Context())
	testkit.Must(t, err)
	if want := `apiserver_admission_webhook_request_total{code="403",name="` + name + `"`; !strings.Contains(metrics, want) {
		t.Errorf("the API server's metrics have no %s", want)
	}
}

// Without a node nothing can be scheduled, and only a scheduler reports that.
func testScheduler(t *testing.T, c *cluster.Cluster) {
	pods := c.Client().CoreV1().Pods(namespace)
	if _, err := pods.Create(t.Context(), newPod("unschedulable"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	testkit.EventuallyEmpty(t, func() string {
		pod, err := pods.Get(t.Context(), "unschedulable", metav1.GetOptions{})
		testkit.Must(t, err)
		for _, condition := range pod.Status.Conditions {
			if condition.Type == corev1.PodScheduled && condition.Reason == corev1.PodReasonUnschedulable {
				return ""
			}
		}
		return fmt.Sprintf("pod conditions: got %v, want %s", pod.Status.Conditions, corev1.PodReasonUnschedulable)
	})
}

func testClose(t *testing.T, c *cluster.Cluster) {
	testkit.Must(t, c.Close())
	if _, err := os.Stat(c.Dir); !os.IsNotExist(err) {
		t.Errorf("%s after Close: got %v, want it gone", c.Dir, err)
	}
	if _, err := c.Metrics(t.Context()); err == nil {
		t.Error("the API server answers after Close")
	}
	if err := c.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}
