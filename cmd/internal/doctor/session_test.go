package doctor

import (
	"os"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/check"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/test/ststest"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// Doctor gets a session, and a second one with assumeRole, from each kind of STS endpoint. The
// test's STS refuses a signature for another region than the endpoint's.
func TestExchangeAtEndpoints(t *testing.T) {
	w := ststest.New(t)
	first := w.Role(t, "111122223333", "first", 3600)
	second := w.ChainedRole(t, "444455556666", "second", first)
	firstARN, err := policy.ParseARN(first)
	testkit.Must(t, err)
	secondARN, err := policy.ParseARN(second)
	testkit.Must(t, err)
	token, err := os.ReadFile(w.Token)
	testkit.Must(t, err)
	proxy := w.StartProxy(t)
	for _, endpoint := range []string{
		"",
		"https://sts.us-east-2.amazonaws.com",
		"https://sts-fips.us-west-2.amazonaws.com",
		"https://sts.eu-central-1.api.aws",
		"https://sts.amazonaws.com",
	} {
		for _, assumeRole := range []policy.ARN{{}, secondARN} {
			e := exchange{region: ststest.Region, role: firstARN, assumeRole: assumeRole,
				sts: policy.STS{Endpoint: endpoint, ProxyURL: proxy, CABundle: string(w.CA)}}
			if _, refused := e.session(t.Context(), string(token)); refused != nil {
				t.Errorf("endpoint %q, assumeRole %q: %v", endpoint, assumeRole, refused)
			}
		}
	}
}

// The flow of one pod proves a write to a destination only if all the pods that count write to it.
func TestFlowProves(t *testing.T) {
	pod := func(name string, destinations ...string) corev1.Pod {
		p := samplePod(policy.Subject{Namespace: "m", ServiceAccount: "p"}, "")
		p.Name = name
		config := sidecarconfig.Config{Version: sidecarconfig.VersionSigV4, Source: "a", Target: "b", File: "c", Credentials: "d", Token: "e"}
		for _, d := range destinations {
			config.Destinations = append(config.Destinations, sidecarconfig.Destination{Name: d})
		}
		p.Spec.InitContainers = []corev1.Container{{Name: sidecarconfig.ContainerName,
			Env: []corev1.EnvVar{{Name: sidecarconfig.Variable, Value: config.Encode()}}}}
		return *p
	}
	plain := *samplePod(policy.Subject{Namespace: "m", ServiceAccount: "p"}, "")
	granted := []policy.Destination{{Name: "central"}, {Name: "team"}}
	one := &subject{Subject: policy.Subject{Namespace: "m", ServiceAccount: "p"}, destinations: granted}
	elsewhere := &subject{Subject: policy.Subject{Namespace: "elsewhere", ServiceAccount: "p"}, destinations: granted}
	for _, c := range []struct {
		name  string
		pods  []corev1.Pod
		about check.About
		want  bool
	}{
		{"the pods write to both", []corev1.Pod{pod("a", "central", "team"), pod("b", "team", "central")},
			check.About{Subject: one.String()}, true},
		{"a pod writes to another", []corev1.Pod{pod("a", "central", "team"), pod("b", "team")}, check.About{Subject: one.String()}, false},
		{"a pod is not injected", []corev1.Pod{pod("a", "central"), plain}, check.About{Subject: one.String()}, true},
		{"the pods of the other cannot be listed", []corev1.Pod{pod("a", "central")}, check.About{Subject: elsewhere.String()}, false},
		{"the pods of all count", []corev1.Pod{pod("a", "central")}, check.About{}, false},
	} {
		x := runnerOn(t, map[string]any{"/api/v1/namespaces/m/pods": corev1.PodList{Items: c.pods}})
		x.subjects = []*subject{one, elsewhere}
		if got := x.flowProves(t.Context(), c.about, granted[0]); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
