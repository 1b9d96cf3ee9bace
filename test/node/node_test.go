//go:build linux && e2e

package node_test

import (
	"os"
	"testing"

	"github.com/ampbridge/ampbridge/test/node"
)

func TestMain(m *testing.M) { os.Exit(node.Main(m, node.Setup{})) }

func TestNode(t *testing.T) {
	n := node.Start(t, node.Options{Hosts: []string{"sts.eu-west-1.amazonaws.com"}, Progress: t.Output()})
	_ = n
}
