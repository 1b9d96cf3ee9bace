package sidecarconfig

import (
	"testing"
)

// sharedAlike checks that both ways to encode a config give the same text. The mark of a pod is the
// hash of one, and the auditor compares it with the hash of the other.
func sharedAlike(t *testing.T, c Config) {
	t.Helper()
	if got, want := string(NewShared(c).Append(nil, c)), c.Encode(); got != want {
		t.Errorf("Shared and Encode differ:\n%s\n%s", got, want)
	}
}

func TestShared(t *testing.T) {
	for _, a := range []Config{example(t, "monitoring", "prometheus-k8s"), example(t, "legacy", "prometheus")} {
		for _, edit := range []func(*Config){
			func(*Config) {},
			func(c *Config) { c.Private = true },
			func(c *Config) { c.File = "" },
			func(c *Config) { c.File = "a\"b\\<c>&\u2028\x00ä\xff.yml" },
			func(c *Config) { c.Cluster, c.Token = `"file":""`, `,"token":` },
			func(c *Config) { c.Prometheus = Prometheus{Address: "127.0.0.1:9090"} },
			func(c *Config) { c.Prometheus = Prometheus{Prefix: "/p", TLS: true, Version: "3.15"} },
			func(c *Config) { c.MountPoints = []MountPoint{{Name: "rules"}, {Name: "<web>.yml", File: true}} },
			func(c *Config) { c.MetricsPort = NoMetrics },
			func(c *Config) { c.MetricsPort = 19095 },
			func(c *Config) { c.Destinations = nil },
		} {
			c := a
			edit(&c)
			sharedAlike(t, c)
		}
	}
}

// TestSharedByMany: one encoder serves configs that differ in the pod's own members.
func TestSharedByMany(t *testing.T) {
	a := example(t, "monitoring", "prometheus-k8s")
	s := NewShared(a)
	b := a
	b.File, b.Private, b.MetricsPort = "other.yml", true, 29095
	for _, c := range []Config{a, b, a} {
		if got, want := string(s.Append([]byte("x"), c)), "x"+c.Encode(); got != want {
			t.Errorf("got %s\nwant %s", got, want)
		}
	}
}
