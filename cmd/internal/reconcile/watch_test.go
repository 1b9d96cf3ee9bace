package reconcile

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// BenchmarkWatch measures what the watch keeps of clusters with many service
// accounts, each with the metadata that Helm and EKS leave on one. The API
// server is played: a real one takes minutes to make 50,000 of them.
func BenchmarkWatch(b *testing.B) {
	for _, n := range []int{100, 50_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			server := httptest.NewServer(apiServer(b, n))
			defer server.Close()
			defer server.CloseClientConnections()
			for b.Loop() {
				before := heap()
				w, err := newWatch(&rest.Config{Host: server.URL}, func() {})
				testkit.Must(b, err)
				ctx, stop := context.WithCancel(b.Context())
				testkit.Must(b, w.start(ctx))
				accounts, err := w.serviceAccounts()
				if err != nil || len(accounts) != n {
					b.Fatalf("%d service accounts, error %v", len(accounts), err)
				}
				b.ReportMetric(float64(heap()-before)/1e6, "MB-heap")
				runtime.KeepAlive(w)
				stop()
			}
		})
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// apiServer lists one labelled namespace and n service accounts in it, and never
// has news.
func apiServer(b *testing.B, n int) http.Handler {
	list := func(resource string, n int) []byte {
		objects := metav1.PartialObjectMetadataList{
			TypeMeta: metav1.TypeMeta{APIVersion: "meta.k8s.io/v1", Kind: "PartialObjectMetadataList"},
			ListMeta: metav1.ListMeta{ResourceVersion: "1"},
		}
		for i := range n {
			o := metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
				Name: fmt.Sprintf(
					"%s-prometheus-server-%05d",
					resource,
					i,
				),
				UID:               types.UID(fmt.Sprintf("00000000-0000-0000-0000-%012d", i)),
				ResourceVersion:   fmt.Sprint(i + 1),
				CreationTimestamp: metav1.NewTime(time.Unix(1_700_000_000, 0)),
				Labels: map[string]string{
					policy.LabelInjection:          "enabled",
					"app.kubernetes.io/managed-by": "Helm",
					"helm.sh/chart":                "prometheus-25.0.0",
				},
				Annotations: map[string]string{
					"meta.helm.sh/release-name":  "prometheus",
					"eks.amazonaws.com/role-arn": "arn:aws:iam::111122223333:role/some-role",
				},
				ManagedFields: []metav1.ManagedFieldsEntry{
					{Manager: "helm", Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: "v1",
						FieldsV1: metav1.NewFieldsV1(`{"f:metadata":{"f:annotations":{".":{},"f:meta.helm.sh/release-name":{}}}}`)},
				},
			}}
			if resource == "serviceaccounts" {
				o.Namespace = "namespaces-prometheus-server-00000"
			}
			objects.Items = append(objects.Items, o)
		}
		text, err := json.Marshal(objects)
		testkit.Must(b, err)
		return text
	}
	namespaces, accounts := list("namespaces", 1), list("serviceaccounts", n)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch {
		case r.URL.Query().Get("sendInitialEvents") != "":
			http.Error(
				w,
				`{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Invalid","code":422}`,
				http.StatusUnprocessableEntity,
			)
		case r.URL.Query().Get("watch") != "":
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		case strings.HasSuffix(r.URL.Path, "/namespaces"):
			_, _ = w.Write(namespaces)
		default:
			_, _ = w.Write(accounts)
		}
	})
}

func TestStripped(t *testing.T) {
	object := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		Namespace:       "monitoring",
		Name:            "prometheus",
		UID:             "1",
		ResourceVersion: "2",
		GenerateName:    "x",
		Labels:          map[string]string{policy.LabelInjection: "enabled", "other": "x"},
		Annotations: map[string]string{
			policy.AnnotationInject:       "true",
			policy.AnnotationDestinations: "central",
			policy.AnnotationRoleARN:      "x",
			"other":                       "x",
		},
	}}
	got, err := stripped(object)
	testkit.Must(t, err)
	text, err := json.Marshal(got)
	testkit.Must(t, err)
	const want = `{"metadata":{"name":"prometheus","namespace":"monitoring","uid":"1","resourceVersion":"2",` +
		`"labels":{"ampbridge.io/injection":"enabled"},"annotations":{"ampbridge.io/destinations":"central","ampbridge.io/inject":"true"}}}`
	if string(text) != want {
		t.Errorf("kept %s\nwant %s", text, want)
	}
}

// A tenant's annotations do not fill the memory.
func TestLongAnnotationsAreNotKept(t *testing.T) {
	for _, c := range []struct{ name, value, want string }{
		{policy.AnnotationDestinations, "central", "central"},
		{policy.AnnotationDestinations, strings.Repeat("a,", 100_000), "(too long)"},
		{policy.AnnotationInject, strings.Repeat("x", 250_000), "(too long)"},
		{"example.com/other", strings.Repeat("x", 250_000), ""},
	} {
		kept, err := stripped(
			&metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: "a", Annotations: map[string]string{c.name: c.value}}},
		)
		testkit.Must(t, err)
		if got := kept.(*metav1.PartialObjectMetadata).Annotations[c.name]; got != c.want {
			t.Errorf("%s of %d bytes: kept %.40q, want %q", c.name, len(c.value), got, c.want)
		}
	}
}
