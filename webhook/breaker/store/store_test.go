package store_test

import (
	"fmt"
	"testing"

	"k8s.io/client-go/kubernetes/fake"

	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/webhook/breaker"
	"github.com/ampbridge/ampbridge/webhook/breaker/store"
)

func TestChange(t *testing.T) {
	client := fake.NewClientset().CoreV1().ConfigMaps("ampbridge")
	if state, err := store.Read(t.Context(), client); err != nil || len(state) != 0 {
		t.Fatal(state, err)
	}
	w := breaker.Workload{Namespace: "ns", Kind: "StatefulSet", Name: "prometheus"}
	open := func(s breaker.State) breaker.State { return s.With(breaker.Entry{Workload: w, Revision: "one"}) }
	shut := func(s breaker.State) breaker.State { return s.Without(w) }
	for i, edit := range []func(breaker.State) breaker.State{shut, open, open, shut} {
		written, err := store.Change(t.Context(), client, edit)
		if err != nil {
			t.Fatal(i, err)
		}
		state, err := store.Read(t.Context(), client)
		testkit.Must(t, err)
		testkit.Equal(t, fmt.Sprintf("step %d", i), len(written), len(state))
		if _, isOpen := state.Open(w, "one"); isOpen != (i == 1 || i == 2) {
			t.Errorf("step %d: open is %v", i, isOpen)
		}
	}
}
