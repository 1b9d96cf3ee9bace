package webhook

import (
	"context"
	"log/slog"
	"net/http"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/webhook/inject"
)

// ServiceAccountHandler answers reviews of service accounts that are created or
// updated in namespaces whose label has the value injection: it shows them the
// role that their pods get.
func ServiceAccountHandler(injection policy.Injection, d Dependencies) http.Handler {
	d.setDefaults()
	return &handler[inject.ServiceAccount]{
		Dependencies: d, kind: "ServiceAccount", resource: "serviceaccount", operations: []string{"CREATE", "UPDATE"},
		decide: func(_ context.Context, r *request[inject.ServiceAccount], p *policy.Policy) outcome {
			account := &r.Object
			// What is created may leave the namespace to the request's path.
			account.Metadata.Namespace = r.Namespace
			operations, decision := inject.Annotate(account, injection, p)
			return outcome{Decision: decision, operations: operations, attrs: []slog.Attr{logged("serviceAccount", account.Metadata.Name)}}
		},
	}
}
