package kubelet

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"k8s.io/client-go/kubernetes"

	"github.com/ampbridge/ampbridge/test/cluster"
	"github.com/ampbridge/ampbridge/test/tools"
)

const (
	namespace = "default"
	image     = "registry.example/tests/probe"
)

// testbed is shared by all tests of this package: one cluster, and the program of the only image.
var testbed struct {
	cluster *cluster.Cluster
	client  kubernetes.Interface
	probe   string
}

func TestMain(m *testing.M) {
	Init()
	if kubeconfig := os.Getenv(orphanEnv); kubeconfig != "" {
		orphan(kubeconfig)
	}
	code, err := runTests(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func runTests(m *testing.M) (code int, err error) {
	dir, err := os.MkdirTemp("", "kubelet-test-")
	if err != nil {
		return 1, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	testbed.probe = filepath.Join(dir, "probe")
	ctx := context.Background()
	if err := tools.GoBuild(ctx, testbed.probe, "-buildvcs=false", "./testdata/probe"); err != nil {
		return 1, err
	}
	c, err := cluster.New(ctx, cluster.Options{})
	if err != nil {
		return 1, err
	}
	testbed.cluster, testbed.client = c, c.Client()
	code = m.Run()
	return code, c.Close()
}
