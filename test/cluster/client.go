package cluster

import (
	"testing"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/ampbridge/ampbridge/test/testkit"
)

// ClientFor returns a client with that configuration, such as that of [Cluster.As].
func ClientFor(tb testing.TB, config *rest.Config) kubernetes.Interface {
	tb.Helper()
	client, err := kubernetes.NewForConfig(config)
	testkit.Must(tb, err)
	return client
}
