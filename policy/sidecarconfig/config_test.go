package sidecarconfig

import (
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/policytest"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// fullPolicy is a policy with every field.
func fullPolicy(t testing.TB) *policy.Policy {
	t.Helper()
	data := testkit.ReadFile(t, "../testdata/full.yaml")
	return policytest.Parse(t, data)
}

func example(t *testing.T, namespace, serviceAccount string) Config {
	t.Helper()
	p := fullPolicy(t)
	return placed(New(p, policytest.Entitled(t, p, namespace, serviceAccount)))
}

// placed returns a config with the paths of an injected pod.
func placed(a Config) Config {
	a.Source, a.Target, a.File = SourceDir, TargetDir, "prometheus.yml"
	a.Credentials, a.Token = CredentialsDir+"/credentials", TokenDir+"/token"
	return a
}

func TestNew(t *testing.T) {
	a := example(t, "monitoring", "prometheus-k8s")
	if a.SessionSeconds != 12*3600 || a.STS.ProxyURL != "http://proxy.example:3128" || len(a.Destinations) != 2 {
		t.Errorf("sidecar config = %+v", a)
	}
	central, backup := a.Destinations[0], a.Destinations[1]
	if central.Role != "arn:aws:iam::111122223333:role/ampbridge/dev-aks/ampbridge.dev-aks.central" || central.AssumeRole != "" ||
		central.Region != "eu-west-1" {
		t.Errorf("central = %+v", central)
	}
	if backup.AssumeRole != "arn:aws-us-gov:iam::444455556666:role/writer" {
		t.Errorf("backup = %+v", backup)
	}
}

// TestWayToSTS: a destination's settings for STS take precedence, and the policy's apply to the
// rest. A destination without settings has none in the config.
func TestWayToSTS(t *testing.T) {
	a := example(t, "monitoring", "prometheus-k8s")
	central, backup := a.Destinations[0], a.Destinations[1]
	if central.STS != nil || central.ExternalID != "" {
		t.Errorf("central: %+v, %q", central.STS, central.ExternalID)
	}
	want := STS{Endpoint: "https://vpce-0123.sts.us-gov-west-1.vpce.amazonaws.com", ProxyURL: "http://proxy.example:3128"}
	if backup.STS == nil || *backup.STS != want || backup.ExternalID != "dev-aks/writer" {
		t.Errorf("backup: %+v, %q", backup.STS, backup.ExternalID)
	}
}

// TestWayToAMP: the relay gets the settings of the block for sigv4, because a pod may move to the
// relay. The text of the CA is beside the block, and each destination has its own CA file.
func TestWayToAMP(t *testing.T) {
	a := example(t, "monitoring", "prometheus-k8s")
	central, backup := a.Destinations[0], a.Destinations[1]
	if central.AMP.ProxyURL != "http://proxy.example:3128" || !strings.HasPrefix(central.AMP.CABundle, "-----BEGIN CERTIFICATE-----") ||
		central.AMP.ProxyFromEnvironment || central.AMP.DropOn429 {
		t.Errorf("central: %+v", central.AMP)
	}
	if (backup.AMP != AMP{ProxyFromEnvironment: true, DropOn429: true}) {
		t.Errorf("backup: %+v", backup.AMP)
	}
	if central.Block.TLS == nil || central.Block.TLS.CAFile != CredentialsDir+"/central.ca.pem" ||
		central.Block.ProxyURL != central.AMP.ProxyURL {
		t.Errorf("the block of central: %+v", central.Block)
	}
	if backup.Block.TLS != nil || !backup.Block.ProxyFromEnvironment || backup.Block.QueueConfig.RetryOnRateLimit {
		t.Errorf("the block of backup: %+v", backup.Block)
	}
}

// TestRolesOfServiceAccounts: if each service account has its own role, the config names that role,
// unless the admin manages the destination's role.
func TestRolesOfServiceAccounts(t *testing.T) {
	p := fullPolicy(t)
	p.Trust.RoleScope = policy.RoleScopeServiceAccount
	p.Destinations[1].Role = policy.ARN{Partition: "aws-us-gov", Service: "iam", Account: "444455556666", Resource: "role/admins"}
	a := New(p, policytest.Entitled(t, p, "monitoring", "prometheus-k8s"))
	for i, want := range []string{"arn:aws:iam::111122223333:role/ampbridge/dev-aks/" +
		"ampbridge.dev-aks.central.monitoring.prometheus-k8s", "arn:aws-us-gov:iam::444455556666:role/admins"} {
		if got := a.Destinations[i].Role; got != want {
			t.Errorf("destination %d: %s, want %s", i, got, want)
		}
	}
}

// TestReplicaLabels: only a group that the policy or the pod declares gets replica labels, with its
// own name.
func TestReplicaLabels(t *testing.T) {
	plain := example(t, "monitoring", "prometheus-k8s").Destinations[0].For("p-0")
	for _, r := range plain.WriteRelabelConfigs {
		if r.TargetLabel == "__replica__" {
			t.Error("a pod outside of a group carries __replica__")
		}
	}
	group := example(t, "legacy", "prometheus").Destinations[0].For("p-0")
	labels := map[string]string{}
	for _, r := range group.WriteRelabelConfigs {
		if r.TargetLabel == "cluster" && (r.SourceLabels != nil || r.Regex != nil) {
			t.Errorf("a series with a cluster of its own stays out of the election: %+v", r)
		}
		if r.Replacement != nil {
			labels[r.TargetLabel] = *r.Replacement
		}
	}
	if labels["cluster"] != "legacy-pair" || labels["__replica__"] != "p-0" {
		t.Errorf("labels = %v", labels)
	}
}

func TestEncodeAndDecode(t *testing.T) {
	a := example(t, "monitoring", "prometheus-k8s")
	a.Reload, a.Prometheus = StartOnly, Prometheus{Address: "127.0.0.1:9090", Prefix: "/p", TLS: true}
	a.MountPoints = []MountPoint{{Name: "rules"}, {Name: "web.yml", File: true}}
	got, err := Decode(a.Encode())
	testkit.Must(t, err)
	testkit.Equal(t, "round trip", a, got)
	// A later webhook may add fields.
	if _, err := Decode(strings.Replace(a.Encode(), `{"version":1`, `{"version":1,"later":true`, 1)); err != nil {
		t.Errorf("with a field of a later version: %v", err)
	}
}

// TestOldest: without new settings the text stays the same, and newer fields of a block appear only
// if the policy sets them. The hash of the text shows which pods are outdated.
func TestOldest(t *testing.T) {
	text := example(t, "monitoring", "prometheus-k8s").Encode()
	for _, newer := range []string{"reload", "prometheus", "mountPoints", "send_native_histograms", "sample_age_limit"} {
		if strings.Contains(text, `"`+newer+`":`) {
			t.Errorf("%s is written: %s", newer, text)
		}
	}
}

func TestDecodeNamesWhatIsWrong(t *testing.T) {
	a := example(t, "monitoring", "prometheus-k8s")
	noToken, newer := a, a
	noToken.Token, newer.Version = "", VersionWriter+1
	for text, want := range map[string]string{
		"": Variable, "{": Variable, noToken.Encode(): "token is missing", newer.Encode(): "version 4",
	} {
		if _, err := Decode(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Decode(%.40q) = %v, want %q in it", text, err, want)
		}
	}
}
