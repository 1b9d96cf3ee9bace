package kube

import (
	"path/filepath"
	"testing"

	"github.com/ampbridge/ampbridge/test/testkit"
)

func TestContext(t *testing.T) {
	path := testkit.TempFile(t, "config", "apiVersion: v1\nkind: Config\ncurrent-context: dev-aks-admin\n")
	if got := Context(path, Overrides{}); got != "dev-aks-admin" {
		t.Errorf("%q", got)
	}
	t.Setenv("KUBECONFIG", path)
	if got := Context("", Overrides{}); got != "dev-aks-admin" {
		t.Errorf("by $KUBECONFIG: %q", got)
	}
	if got := Context(filepath.Join(t.TempDir(), "none"), Overrides{}); got != "" {
		t.Errorf("without a kubeconfig: %q", got)
	}
}
