package kube_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/cmd/internal/kube"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// Without a cluster, the error names a variable that points nowhere.
func TestNoCluster(t *testing.T) {
	empty := testkit.TempFile(t, "empty", "")
	missing := empty + "-not"
	t.Setenv("HOME", t.TempDir())
	for value, named := range map[string]bool{
		missing:                 true,
		missing + ":" + missing: true,
		missing + ":" + empty:   false,
		empty:                   false,
	} {
		t.Setenv("KUBECONFIG", value)
		_, err := kube.Config("", kube.Overrides{})
		if !errors.Is(err, kube.ErrNone) || strings.Contains(err.Error(), "KUBECONFIG is "+value+", which does not exist") != named {
			t.Errorf("KUBECONFIG=%s: %v", value, err)
		}
	}
}
