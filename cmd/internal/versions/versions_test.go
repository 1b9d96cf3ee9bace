package versions

import (
	"strings"
	"testing"
)

func TestSkew(t *testing.T) {
	const image, other = "ampbridge:v0.2.0", "ampbridge:v0.1.0"
	same := Cluster{Kubernetes: "v1.34.1", Version: "v0.2.0", Webhook: image, Sync: image, Sidecar: image}
	for _, c := range []struct {
		name, client string
		change       func(*Cluster)
		want         []string
	}{
		{"the same", "v0.2.0", nil, nil},
		{"another patch", "v0.2.7", nil, nil},
		{"an unreleased build", "(devel)", nil, nil},
		{"a build of a commit", "v0.0.0-20261129010203-0123456789ab", nil, nil},
		{"a provider's Kubernetes", "v0.2.0", func(c *Cluster) { c.Kubernetes = "v1.30.9-eks-0123abc" }, nil},
		{"sync off", "v0.2.0", func(c *Cluster) { c.Sync = "" }, nil},
		{"a program that is older", "v0.1.9", nil, []string{"this program may not know what the installation does"}},
		{"a program that is newer", "v1.0.0", nil, []string{"the installation may not know what this program does"}},
		{"an old Kubernetes", "v0.2.0", func(c *Cluster) { c.Kubernetes = "v1.29.15-gke.100" },
			[]string{"is older than 1.30"}},
		{"half an upgrade", "v0.2.0", func(c *Cluster) { c.Sync = other },
			[]string{"webhook and sync have different images"}},
		{"old sidecars", "v0.2.0", func(c *Cluster) { c.Sidecars = []Sidecars{{image, 5}, {other, 2}} },
			[]string{"2 pods run the sidecar " + other}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cluster := same
			if c.change != nil {
				c.change(&cluster)
			}
			r := Report{Client: Client{Version: c.client}, Cluster: &cluster}
			r.warn()
			if len(r.Warnings) != len(c.want) {
				t.Fatalf("warnings %q, want %q", r.Warnings, c.want)
			}
			for i, part := range c.want {
				if !strings.Contains(r.Warnings[i], part) {
					t.Errorf("warning %q, want %q", r.Warnings[i], part)
				}
			}
		})
	}
}
