package certificates

import (
	"crypto/x509"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ampbridge/ampbridge/test/patchtest"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// A certificate is good for API servers whose clocks are somewhat behind, under
// the names they call, and its authority can sign nothing more.
func TestIssue(t *testing.T) {
	p := newPair(t, start, names...)
	roots := x509.NewCertPool()
	roots.AddCert(p.authority)
	for _, test := range []struct {
		name string
		at   time.Time
		good bool
	}{
		{"webhook", start, true},
		{"webhook.ampbridge", start, true},
		{"webhook.ampbridge.svc", start, true},
		{"webhook.ampbridge.svc", start.Add(-59 * time.Minute), true},
		{"webhook.ampbridge.svc", start.Add(-61 * time.Minute), false},
		{"webhook.ampbridge.svc", start.Add(90*day - time.Minute), true},
		{"webhook.ampbridge.svc", start.Add(90*day + time.Minute), false},
		{"other.ampbridge.svc", start, false},
	} {
		_, err := p.served.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: test.name, CurrentTime: test.at})
		if (err == nil) != test.good {
			t.Errorf("%s at %s: got %v, want good: %v", test.name, test.at, err, test.good)
		}
	}
	if !p.authority.IsCA || !p.authority.MaxPathLenZero || p.served.Leaf.IsCA {
		t.Errorf("authority: CA %v, leaves only %v; certificate: CA %v", p.authority.IsCA, p.authority.MaxPathLenZero, p.served.Leaf.IsCA)
	}
	if other := newPair(t, start, names...); other.authority.Equal(p.authority) {
		t.Error("two certificates have one authority")
	}
}

func TestSecretKeepsTheState(t *testing.T) {
	a, b, c := newPair(t, start, names...), newPair(t, start, names...), newPair(t, start, names...)
	at := start.Add(123456789 * time.Nanosecond)
	for name, s := range map[string]State{
		"empty":      {},
		"first":      {Current: a, Switched: at},
		"announcing": {Current: a, Next: b, Switched: at, Announced: Announcement{"uid/3", at}},
		"restored":   {Next: b, Previous: authorities(a, c)},
		"retiring":   {Current: b, Previous: authorities(a), Switched: at},
		"asked for":  {Current: b, Rotate: true},
	} {
		t.Run(name, func(t *testing.T) {
			// Whatever else is in the Secret stays.
			before := &corev1.Secret{
				ObjectMeta: metav1.ObjectMeta{
					Name:        "tls",
					Labels:      map[string]string{"a": "b"},
					Annotations: map[string]string{"c": "d", AnnotationFormat: format},
				},
				Data: map[string][]byte{"other": []byte("1")},
			}
			if s.Rotate {
				before.Annotations[AnnotationRotate] = "please"
			}
			secret := encode(
				State{Current: c, Next: c, Previous: authorities(c), Rotate: s.Rotate, Announced: Announcement{"uid/1", at}},
				before,
			)
			secret = encode(s, secret)
			got, problems, err := decode(secret, start)
			if err != nil || len(problems) > 0 {
				t.Fatal(err, problems)
			}
			same := cmp.Comparer(func(p, q *Pair) bool { return p == nil && q == nil || p.Equal(q) })
			testkit.Equal(t, "the state", s, got, same)
			if string(secret.Data["other"]) != "1" || secret.Labels["a"] != "b" || secret.Annotations["c"] != "d" {
				t.Errorf("something else has changed: %v", secret)
			}
			for key, value := range secret.Data {
				if block := string(value); strings.Contains(block, "PRIVATE KEY") && !strings.HasSuffix(key, corev1.TLSPrivateKeyKey) {
					t.Errorf("%s has a key", key)
				}
			}
		})
	}
}

func TestSecretIsRefusedOrMended(t *testing.T) {
	a, b := newPair(t, start, names...), newPair(t, start, names...)
	for _, test := range []struct {
		name    string
		edit    func(*corev1.Secret)
		at      time.Time
		err     string
		problem string
	}{
		{"another's", func(s *corev1.Secret) { delete(s.Annotations, AnnotationFormat) }, start, "has content, but not the annotation " +
			"ampbridge.io/certificates", ""},
		{"a later version's", func(s *corev1.Secret) { s.Annotations[AnnotationFormat] = "v2" }, start, `has format "v2", ` +
			`but this version of ampbridge knows only "v1"`, ""},
		{"empty", func(s *corev1.Secret) { s.Annotations, s.Data = nil, nil }, start, "", ""},
		{"no key", func(s *corev1.Secret) { delete(s.Data, "tls.key") }, start, "", "tls.crt: tls: failed to find any PEM data in key input"},
		{"another key", func(s *corev1.Secret) { s.Data["tls.key"] = b.Key }, start, "", "tls.crt: tls: private key does not match public key"},
		{"another authority", func(s *corev1.Secret) { s.Data["ca.crt"] = encodeBundle(authorities(b)) }, start, "", "tls.crt: is not " +
			"signed by the authority beside it"},
		{"no authority", func(s *corev1.Secret) { delete(s.Data, "ca.crt") }, start, "", "tls.crt: has 0 authorities, want 1"},
		{"past its time", func(*corev1.Secret) {}, start.Add(91 * day), "", "tls.crt: has expired at 2026-04-02T03:04:05Z"},
	} {
		t.Run(test.name, func(t *testing.T) {
			secret := encode(State{Current: a}, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "tls", Namespace: "ampbridge"}})
			test.edit(secret)
			s, problems, err := decode(secret, test.at)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("got error %v, want one with %q", err, test.err)
				}
				return
			}
			if err != nil || strings.Join(problems, "; ") != test.problem {
				t.Errorf("got error %v, problems %q; want problem %q", err, problems, test.problem)
			}
			if s.Current != nil {
				t.Error("it is served nevertheless")
			}
		})
	}
}

// The patch sets the bundle of our own entries, there or not yet, and nothing
// else.
func TestBundlePatch(t *testing.T) {
	entry := func(namespace, service string, bundle []byte) admissionv1.MutatingWebhook {
		return admissionv1.MutatingWebhook{Name: service + ".example.com", ClientConfig: admissionv1.WebhookClientConfig{
			Service: &admissionv1.ServiceReference{Namespace: namespace, Name: service}, CABundle: bundle,
		}}
	}
	url := admissionv1.MutatingWebhook{
		Name:         "url.example.com",
		ClientConfig: admissionv1.WebhookClientConfig{URL: new("https://127.0.0.1"), CABundle: []byte("theirs")},
	}
	before := &admissionv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{
			Name:            "ampbridge",
			ResourceVersion: "7",
			UID:             "uid",
			Generation:      3,
			Labels:          map[string]string{"a": "b"},
		},
		Webhooks: []admissionv1.MutatingWebhook{
			entry("ampbridge", "webhook", nil),
			url,
			entry("other", "webhook", nil),
			entry("ampbridge", "other", []byte("theirs")),
			entry("ampbridge", "webhook", []byte("old")),
		},
	}
	places := placesOf(before, "ampbridge", "webhook")
	testkit.Equal(t, "our entries", []int{0, 4}, places)
	if got := bundles(before, places); got.Version != "uid/3" || len(got.Entries) != 2 {
		t.Errorf("bundles: got %+v", got)
	}
	patch, err := bundlePatch(before.ResourceVersion, places, []byte("new"))
	testkit.Must(t, err)
	document, err := json.Marshal(before)
	testkit.Must(t, err)
	var after admissionv1.MutatingWebhookConfiguration
	testkit.Must(t, json.Unmarshal(patchtest.Apply(t, document, patch), &after))
	want := before.DeepCopy()
	want.Webhooks[0].ClientConfig.CABundle, want.Webhooks[4].ClientConfig.CABundle = []byte("new"), []byte("new")
	testkit.Equal(t, "the configuration after the patch", want, &after)
}
