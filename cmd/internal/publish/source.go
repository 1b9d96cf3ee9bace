package publish

import (
	"context"
	"fmt"
	"os"

	"github.com/ampbridge/ampbridge/cmd/internal/kube"
	"github.com/ampbridge/ampbridge/policy"
)

// source holds the issuer and the keys of a cluster. discovery is empty if only keys were
// given.
type source struct {
	discovery policy.Issuer
	keys      []Key
}

// source reads the given files, or else the API server.
func (o *Options) source(ctx context.Context) (source, error) {
	read := func(_, file string) ([]byte, string, error) {
		data, err := os.ReadFile(file)
		return data, file, err
	}
	if o.Keys == "" {
		cluster, err := kube.Connect(o.Kubeconfig, o.Overrides)
		if err != nil {
			return source{}, err
		}
		read = func(path, _ string) ([]byte, string, error) {
			data, err := cluster.Client.Discovery().RESTClient().Get().AbsPath(path).DoRaw(ctx)
			if err != nil {
				err = fmt.Errorf(
					"the API server's %s: %w (the ClusterRole system:service-account-issuer-discovery allows reading it)",
					path,
					err,
				)
			}
			return data, "the API server's " + path, err
		}
	}
	var s source
	if o.Keys == "" || o.Discovery != "" {
		data, name, err := read("/"+DiscoveryPath, o.Discovery)
		if err != nil {
			return source{}, err
		}
		document, err := ParseDiscovery(data)
		if err != nil && !o.Ahead {
			return source{}, fmt.Errorf("%s: %w", name, err)
		}
		s.discovery = document.Issuer
	}
	data, name, err := read("/"+KeysPath, o.Keys)
	if err != nil {
		return source{}, err
	}
	if s.keys, err = ParseKeys(data); err != nil {
		return source{}, fmt.Errorf("%s: %w", name, err)
	}
	return s, nil
}
