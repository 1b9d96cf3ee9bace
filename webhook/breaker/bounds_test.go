package breaker_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/webhook/breaker"
)

var since = time.Unix(1, 0).UTC()

func size(s breaker.State) (n int) {
	for k, v := range s {
		n += len(k) + len(v)
	}
	return n
}

func entry(namespace, kind, name, revision string) breaker.Entry {
	return breaker.Entry{
		Workload: breaker.Of(namespace, "pod", kind, name, nil),
		Revision: revision,
		Cause:    "ImagePullBackOff",
		Since:    since,
	}
}

// The reported case: one tenant's workloads filled the ConfigMap. The other cases have long names,
// or a revision for each workload.
func TestOneNamespaceFillsNothing(t *testing.T) {
	const offered = 5000
	for name, c := range map[string]struct {
		entry func(i int) breaker.Entry
		open  int // of the last ones at least so many
	}{
		"short names": {func(i int) breaker.Entry { return entry("tenant", "StatefulSet", fmt.Sprint("p-", i), "one") }, offered},
		"long names": {func(i int) breaker.Entry {
			return entry("tenant", strings.Repeat("k", 63), fmt.Sprintf("%0253d", i), "one")
		}, offered},
		"a revision for each of them": {func(i int) breaker.Entry {
			return entry("tenant", "StatefulSet", fmt.Sprint("p-", i),
				fmt.Sprint(i))
		}, breaker.PerNamespace},
		"two revisions": {func(i int) breaker.Entry { return entry("tenant", "StatefulSet", fmt.Sprint("p-", i), fmt.Sprint(i%2)) }, offered},
	} {
		t.Run(name, func(t *testing.T) {
			other := entry("other", "StatefulSet", "prometheus", "one")
			state := breaker.State{}.With(other)
			for i := range offered {
				state = state.With(c.entry(i))
			}
			last := entry("another", "StatefulSet", "prometheus", "one")
			state = state.With(last)
			open := 0
			for i := range offered {
				if e := c.entry(i); state != nil {
					if _, found := state.Open(e.Workload, e.Revision); found {
						open++
					}
				}
			}
			if open < c.open {
				t.Errorf("open for %d of %d, want %d", open, offered, c.open)
			}
			for _, e := range []breaker.Entry{other, last} {
				if got, found := state.Open(e.Workload, "one"); !found || got != e {
					t.Errorf("not open for %s of %s", e.Workload, e.Namespace)
				}
			}
			if len(state) > breaker.PerNamespace+2 || size(state) > 64<<10 {
				t.Errorf("%d entries of %d bytes", len(state), size(state))
			}
			t.Logf("%d entries, %d bytes", len(state), size(state))
		})
	}
}

// An outage of the registry stops the workloads of very many namespaces.
func TestManyNamespaces(t *testing.T) {
	state := breaker.State{"garbage": strings.Repeat("x", 100<<10)}
	const namespaces, each = 800, 5
	for i := range namespaces {
		for j := range each {
			state = state.With(
				entry(fmt.Sprintf("namespace-%04d-%s", i, strings.Repeat("n", 40)), "StatefulSet", fmt.Sprintf("%0100d", j), "one"),
			)
		}
	}
	if size(state) > breaker.MaxBytes {
		t.Errorf("%d bytes", size(state))
	}
	for i := range namespaces {
		for j := range each {
			e := entry(fmt.Sprintf("namespace-%04d-%s", i, strings.Repeat("n", 40)), "StatefulSet", fmt.Sprintf("%0100d", j), "one")
			if _, open := state.Open(e.Workload, "one"); !open {
				t.Fatalf("not open for %s of %s", e.Workload, e.Namespace)
			}
		}
	}
	t.Logf("%d entries, %d bytes", len(state), size(state))
	// An entry that does not fit leaves the state unchanged.
	for i := 0; ; i++ {
		e := entry(fmt.Sprintf("more-%05d-%s", i, strings.Repeat("n", 50)), "StatefulSet", "p", "one")
		next := state.With(e)
		if size(next) > breaker.MaxBytes {
			t.Fatalf("%d bytes", size(next))
		}
		if _, open := next.Open(e.Workload, "one"); !open {
			if !maps.Equal(next, state) {
				t.Error("an entry that does not fit changed others")
			}
			break
		}
		state = next
	}
}

// Nothing checks what a pod says about its controller. One key that the API server refuses would
// stop the breaker of the whole cluster.
func TestStrangeWorkloads(t *testing.T) {
	names := map[string]bool{}
	for _, name := range []string{"*", "", "a/b", "a b", "a:b", "..", "line\nend", "ünïcode", "\xff\xfe", strings.Repeat("n", 100<<10),
		strings.Repeat("ü", 300), `"}`, "a.b", "-"} {
		for _, kind := range []string{"StatefulSet", "*", "a/b", strings.Repeat("k", 100<<10), "\x00", "a.b"} {
			w := breaker.Of("ns", "pod", kind, name, nil)
			state := breaker.State{}.With(breaker.Entry{Workload: w, Revision: "one", Cause: strings.Repeat("ü", 100), Since: since})
			if _, open := state.Open(w, "one"); !open {
				t.Errorf("%.20q %.20q: not open", kind, name)
			}
			if other := breaker.Of("ns", "pod", "StatefulSet", "prometheus", nil); w != other {
				if _, open := state.Open(other, "one"); open {
					t.Errorf("%.20q %.20q: open for all of the namespace", kind, name)
				}
			}
			for key, value := range state {
				if problems := validation.IsConfigMapKey(
					key,
				); len(problems) > 0 || !strings.HasPrefix(key, "ns.") || len(value) > 1000 ||
					names[key] {
					t.Errorf("%.20q %.20q: key %q, value %q: %v", kind, name, key, value, problems)
				}
				names[key] = true
			}
		}
	}
}

// FuzzState decodes any content of the ConfigMap, one line for each key and value.
func FuzzState(f *testing.F) {
	valid := breaker.State{}
	for i := range 3 {
		valid = valid.With(entry("ns", "StatefulSet", fmt.Sprint("p-", i), "one"))
	}
	valid = valid.With(breaker.Entry{Workload: breaker.All("ns"), Revision: "two", Since: since})
	text, err := json.Marshal(valid)
	testkit.Must(f, err)
	f.Add(text, "ns", "StatefulSet", "p-0", "one")
	f.Add(
		[]byte(`{"ns.StatefulSet.p":"{","ns..one":"{\"namespace\":\"ns\",\"kind\":\"*\",\"name\":\"*\",\"revision\":\"one\"}"}`),
		"ns",
		"*",
		"*",
		"one",
	)
	f.Add(
		[]byte(`{"a.b.c":"{\"since\":\"9999-12-31T23:59:59+24:59\",\"namespace\":\"a\",\"kind\":\"b\",\"name\":\"c\"}"}`),
		"a",
		"b",
		"c",
		"",
	)
	f.Add(
		[]byte(`{"a.b.c":"{\"since\":\"9999-12-31T23:59:59+23:59\",\"namespace\":\"a\",\"kind\":\"b\",\"name\":\"c\"}"}`),
		"a",
		"b",
		"c",
		"",
	)
	// Keys that the API server refuses, and with them every later write.
	f.Add([]byte(`{"...-_1":"{}"}`), "", "..-", "p-0", "one")
	f.Add([]byte(`{"..one":"{\"namespace\":\"\",\"kind\":\"*\",\"name\":\"*\",\"revision\":\"one\"}"}`), "", "*", "*", "one")
	f.Add([]byte(`{"ns..one":"{\"namespace\":\"ns\",\"kind\":\"\",\"name\":\"one\",\"revision\":\"one\"}"}`), "ns", "", "one", "one")
	f.Fuzz(func(t *testing.T, data []byte, namespace, kind, name, revision string) {
		var state breaker.State
		if json.Unmarshal(data, &state) != nil {
			state = breaker.State{
				"ns.StatefulSet.p":                  string(data),
				"ns.." + revision:                   string(data),
				namespace + "." + kind + "." + name: string(data),
			}
		}
		before := maps.Clone(state)
		entries := state.Entries()
		again := breaker.State{}
		for _, e := range entries {
			if len(e.Namespace) > 63 || len(e.Kind) > 63 || len(e.Name) > 253 || len(e.Cause) > 64 || len(e.Revision) > 64 {
				t.Fatalf("an entry without bounds: %+v", e)
			}
			if w := e.Decision().Warning; len(w) > 230 || !utf8.ValidString(w) {
				t.Errorf("warning %q", w)
			}
			if k := e.Key(); len(validation.IsConfigMapKey(k)) > 0 {
				t.Errorf("key %q", k)
			}
			if got, open := state.Open(
				e.Workload,
				e.Revision,
			); !open ||
				(got.Workload != e.Workload && e.Workload != breaker.All(e.Namespace)) {
				t.Errorf("not open for its own entry %+v: %+v", e, got)
			}
			again = again.With(e)
		}
		if size(again) > breaker.MaxBytes {
			t.Errorf("encoded again it has %d bytes", size(again))
		}
		// No open entry is lost when the state is encoded again, unless the state is full.
		for _, e := range entries {
			if _, open := again.Open(e.Workload, e.Revision); !open && len(entries) <= breaker.PerNamespace {
				t.Errorf("%+v is lost", e)
			}
		}
		e := breaker.Entry{Workload: breaker.Of(namespace, "pod", kind, name, nil), Revision: revision, Cause: name, Since: since}
		next := state.With(e)
		if !maps.Equal(next, state) && size(next) > breaker.MaxBytes {
			t.Errorf("with one more it has %d bytes", size(next))
		}
		for key := range next {
			if _, old := state[key]; !old && len(validation.IsConfigMapKey(key)) > 0 {
				t.Errorf("key %q", key)
			}
		}
		if !maps.Equal(before, state) {
			t.Error("the state was changed in its place")
		}
	})
}
