package inject

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// One cache serves all pods, service accounts, deliveries and groups, and does not change the
// result.
func TestCacheChangesNothing(t *testing.T) {
	cached := options(t)
	cached.Cache = &Cache{}
	plain := cached
	plain.Cache = nil
	for range 2 { // the second time from the cache
		for _, name := range pods {
			data := readFile(t, name+".in.json")
			for _, edit := range []func(*policy.Decision){
				func(*policy.Decision) {},
				func(d *policy.Decision) { d.Subject.Namespace = "other" },
				func(d *policy.Decision) { d.Subject.ServiceAccount = "other" },
				func(d *policy.Decision) { d.HA = "pair" },
				func(d *policy.Decision) { d.Environment = policy.EnvironmentContainer },
				func(d *policy.Decision) { d.Destinations = d.Destinations[:1] },
				func(d *policy.Decision) {
					d.Destinations = slices.Clone(d.Destinations)
					d.Destinations[0].Delivery = policy.DeliveryRelay
				},
			} {
				pod := decode(t, data)
				d := granted(t, plain.Policy, pod.Metadata.Namespace)
				edit(&d)
				want, wantDecision := Inject(decode(t, data), d, plain)
				got, decision := Inject(pod, d, cached)
				testkit.Equal(t, fmt.Sprintf("%s, %+v, without and with the cache", name, d.Subject), want, got)
				testkit.Equal(t, name+": the decision without and with the cache", wantDecision, decision)
			}
		}
	}
}

// The cache is emptied for another policy, even if the entitlement has the same name.
func TestCacheOfAnotherPolicy(t *testing.T) {
	o := options(t)
	o.Cache = &Cache{}
	data := readFile(t, "operator.in.json")
	first := string(injected(t, data, o))
	o.Policy = testPolicy(t)
	o.Policy.Cluster.Name = "renamed"
	second := string(injected(t, data, o))
	if first == second || !strings.Contains(second, "renamed") {
		t.Error("the pod is injected by the former policy")
	}
}

// However many service accounts use the cache, also at the same time, it stays small.
func TestCacheIsBounded(t *testing.T) {
	p := testPolicy(t)
	e := granted(t, p, "monitoring").Entitlement
	e, _ = decideDelivery(e, nil)
	p.Destinations[0].RemoteWrite.CABundle = strings.Repeat("x", 16<<10)
	e.Destinations[0].RemoteWrite.CABundle = p.Destinations[0].RemoteWrite.CABundle
	var c Cache
	var group sync.WaitGroup
	for worker := range 4 {
		group.Go(func() {
			for i := range 200 {
				mine := e
				mine.Subject.ServiceAccount = fmt.Sprint(worker, "-", i)
				if s := c.of(p, mine); !strings.Contains(string(s.encoder.Append(nil, s.config)), "xxxx") {
					t.Error("the config lacks the CA bundle")
				}
			}
		})
	}
	group.Wait()
	if len(c.items) == 0 || len(c.items) > 100 || c.size > maxCached {
		t.Errorf("%d entries, %d bytes", len(c.items), c.size)
	}
}
