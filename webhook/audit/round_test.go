package audit

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/webhook/breaker"
)

// However many pods one namespace has, the others come first.
func TestInTurns(t *testing.T) {
	var pods []*observed
	add := func(namespace string, n int) {
		for i := range n {
			pods = append(pods, &observed{name: fmt.Sprint(namespace, i), workload: breaker.Workload{Namespace: namespace}})
		}
	}
	add("a", 5000)
	add("b", 1)
	add("c", 3)
	names := func(pods []*observed) (list []string) {
		for _, o := range pods {
			list = append(list, o.name)
		}
		return list
	}
	if got, want := names(inTurns(pods, 3, 100)), []string{"a0", "b0", "c0", "a1", "c1", "a2", "c2"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got, want := names(inTurns(pods, 3, 4)), []string{"a0", "b0", "c0", "a1"}; !slices.Equal(got, want) {
		t.Errorf("bounded: got %v, want %v", got, want)
	}
}

// One round tells little about one namespace, and something about each.
func TestEventsOfARound(t *testing.T) {
	for _, c := range []struct{ namespaces, want int }{{1, eventsPerNamespace}, {30, 10}, {1000, 1}} {
		all := map[string]policy.Injection{}
		for i := range c.namespaces {
			all[fmt.Sprint(i)] = policy.InjectionEnabled
		}
		var recorder eventRecorder
		for round := range 2 {
			recorder.begin(all)
			for n := range all {
				written := 0
				for range 5000 {
					if recorder.may(n) {
						written++
					}
				}
				if written != c.want {
					t.Fatalf("%d namespaces, round %d: %d events about one, want %d", c.namespaces, round, written, c.want)
				}
			}
		}
	}
}

// An entry goes when it is about nothing any more, and not before.
func TestExpire(t *testing.T) {
	w := breaker.Workload{Namespace: "ns", Kind: "StatefulSet", Name: "p"}
	all := breaker.All("ns")
	labelled := map[string]policy.Injection{"ns": policy.InjectionEnabled}
	for _, c := range []struct {
		name     string
		workload breaker.Workload
		revision string // of the workload's pod today; empty: there is none
		unread   bool
		label    bool
		stays    time.Duration // -1: for good
	}{
		{"its pod is there", w, "one", false, true, -1},
		{"the revision has changed", w, "two", false, true, forgetting},
		{"its pod is gone", w, "", false, true, unseen},
		{"its namespace cannot be read", w, "", true, true, -1},
		{"the label is gone", w, "one", false, false, 0},
		{"a pod of the namespace is there", all, "one", false, true, -1},
		{"of another revision", all, "two", false, true, unseen},
		{"no pod of the namespace is there", all, "", false, true, unseen},
	} {
		a := &auditor{}
		state := breaker.State{}.With(breaker.Entry{Workload: c.workload, Revision: "one"})
		today, revisions, namespaces := map[breaker.Workload]*observed{}, map[breaker.Entry]bool{}, labelled
		if c.revision != "" {
			today[w] = &observed{Finding: Finding{Revision: c.revision}, workload: w}
			revisions[breaker.Entry{Workload: all, Revision: c.revision}] = true
		}
		if !c.label {
			namespaces = nil
		}
		gone := time.Duration(-1)
		for at := time.Duration(0); at <= 48*time.Hour && gone < 0; at += time.Minute {
			if len(a.expire(state, namespaces, today, revisions, begin.Add(at), map[string]bool{"ns": c.unread})) > 0 {
				gone = at
			}
		}
		if gone != c.stays {
			t.Errorf("%s: it went after %v, want %v", c.name, gone, c.stays)
		}
	}
}

// A namespace that cannot be read keeps what is known of it, and of no other: one
// tenant's would else make the memory grow by everybody's pods.
func TestUnreadNamespaceIsForgottenAlone(t *testing.T) {
	h := history{}
	grace := func(policy.Reason) time.Duration { return time.Minute }
	for i := range 1000 {
		pods := []observed{
			{Finding: Finding{Kind: Healthy}, uid: types.UID(fmt.Sprint("other-", i)), workload: breaker.Workload{Namespace: "other"}},
		}
		if i == 0 {
			pods = append(pods, observed{Finding: Finding{Kind: Healthy}, uid: "tenant", workload: breaker.Workload{Namespace: "tenant"}})
		}
		h.age(pods, after(0), grace, map[string]bool{"tenant": i > 0})
	}
	crowd := history{}
	for i := range 10 * maxRemembered {
		crowd[types.UID(fmt.Sprint(i))] = observation{namespace: "tenant"}
	}
	if crowd.age(nil, after(0), grace, map[string]bool{"tenant": true}); len(crowd) > maxRemembered {
		t.Errorf("%d pods of an unread namespace are remembered", len(crowd))
	}
	if _, kept := h["tenant"]; !kept || len(h) != 2 {
		t.Errorf("%d pods are remembered, that of the unread namespace: %v", len(h), kept)
	}
}

// Where pods have very many service accounts, every one of them has its turn.
func TestEveryServiceAccountHasItsRound(t *testing.T) {
	const accounts, share = 5000, 50
	for round := range 2 {
		looked := map[string]int{}
		for number := range share {
			covered := 0
			for i := range accounts {
				if name := fmt.Sprint("account-", i); (window{share, round*share + number}).covers(name) {
					looked[name]++
					covered++
				}
			}
			if covered > 2*accounts/share {
				t.Errorf("round %d looks at %d", number, covered)
			}
		}
		for i := range accounts {
			if n := looked[fmt.Sprint("account-", i)]; n != 1 {
				t.Fatalf("account %d was looked at %d times, want once", i, n)
			}
		}
	}
	if !(window{0, 1}).covers("a") || !(window{1, 7}).covers("b") {
		t.Error("a namespace with few is not looked at in full")
	}
}
