package sidecarconfig

import (
	"testing"

	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// FuzzDecode: a config that was decoded is complete, and is the same after it is encoded and
// decoded again. Any name of a pod appears in the blocks unchanged.
func FuzzDecode(f *testing.F) {
	p := fullPolicy(f)
	for _, account := range []string{"prometheus-k8s", "other"} {
		e, _ := p.Entitled(policy.Subject{Namespace: "monitoring", ServiceAccount: account})
		f.Add(placed(New(p, e)).Encode(), "prometheus-0")
	}
	for _, text := range []string{"", "{}", "null", "[]", `{"version":2}`, `{"version":1,"source":"a","target":"b","file":"c",` +
		`"credentials":"d","token":"e","unknown":1,"destinations":[null,{}]}`} {
		f.Add(text, "")
	}
	f.Fuzz(func(t *testing.T, text, pod string) {
		a, err := Decode(text)
		if err != nil {
			return
		}
		if a.Version != VersionSigV4 && a.Version != VersionRelay || a.Source == "" || a.Target == "" || a.File == "" ||
			a.Credentials == "" || a.Token == "" {
			t.Errorf("an incomplete sidecar config is read: %+v", a)
		}
		sharedAlike(t, a)
		again, err := Decode(a.Encode())
		if err != nil {
			t.Fatalf("%v in %s", err, a.Encode())
		}
		testkit.Equal(t, "written and read again", a, again, cmpopts.EquateEmpty())
		for _, d := range a.Destinations {
			got := d.For(pod)
			if added := len(got.WriteRelabelConfigs) - len(d.Block.WriteRelabelConfigs); d.Replica != (added == 2) {
				t.Errorf("%d rules were added, replica %v", added, d.Replica)
			}
			if _, omitted := got.For(policy.Version{}); omitted == nil && got.QueueConfig.SampleAgeLimit != "" {
				t.Error("a field of newer versions is left to one that is not known")
			}
		}
	})
}
