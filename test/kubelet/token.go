package kubelet

import (
	"context"
	"fmt"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// tokens are a pod's service account tokens. They are bound to the pod and renewed as in the kubelet
// (k8s.io/kubernetes/pkg/kubelet/token): after 80% of their lifetime or 24 hours. If a renewal fails, the old
// token is used until it expires. The kubelet's jitter is omitted.
type tokens struct {
	client kubernetes.Interface
	pod    *corev1.Pod

	mu   sync.Mutex
	held map[string]heldToken // by audience and lifetime
}

type heldToken struct {
	token          string
	renew, expires time.Time
}

// get returns a valid token for the audience; "" is the API server's own audience. If expirationSeconds is
// nil, the token is valid for an hour.
func (t *tokens) get(ctx context.Context, audience string, expirationSeconds *int64) (string, error) {
	life := int64(3600) // the API's default
	if expirationSeconds != nil {
		life = *expirationSeconds
	}
	key := fmt.Sprintf("%s %d", audience, life)
	t.mu.Lock()
	defer t.mu.Unlock()
	held, ok := t.held[key]
	if ok && time.Now().Before(held.renew) {
		return held.token, nil
	}
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: &life,
		BoundObjectRef: &authenticationv1.BoundObjectReference{
			APIVersion: "v1", Kind: "Pod", Name: t.pod.Name, UID: t.pod.UID,
		},
	}}
	if audience != "" {
		request.Spec.Audiences = []string{audience}
	}
	account := t.pod.Spec.ServiceAccountName
	answer, err := t.client.CoreV1().ServiceAccounts(t.pod.Namespace).CreateToken(ctx, account, request, metav1.CreateOptions{})
	if err != nil {
		if ok && time.Now().Before(held.expires) {
			return held.token, nil
		}
		return "", fmt.Errorf("token of service account %s for audience %q: %w", account, audience, err)
	}
	expires := answer.Status.ExpirationTimestamp.Time
	if answer.Spec.ExpirationSeconds != nil { // the API server can grant another lifetime than requested
		life = *answer.Spec.ExpirationSeconds
	}
	granted := time.Duration(life) * time.Second
	renew := expires.Add(-granted / 5)
	if day := expires.Add(24*time.Hour - granted); day.Before(renew) {
		renew = day
	}
	t.held[key] = heldToken{token: answer.Status.Token, renew: renew, expires: expires}
	return answer.Status.Token, nil
}
