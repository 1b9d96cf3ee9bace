package webhook

import (
	"context"
	"log/slog"
	"net/http"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/webhook/inject"
)

// ServiceAccountHandler answers reviews of service accounts that are created or updated in
// namespaces with the label value injection. It writes the pods' role to the service account as an
// annotation.
func ServiceAccountHandler(injection policy.Injection, d Dependencies) http.Handler {
	d.setDefaults()
	return &handler[inject.ServiceAccount]{
		Dependencies: d, kind: "ServiceAccount", resource: "serviceaccount", operations: []string{"CREATE", "UPDATE"},
		decide: func(_ context.Context, r *request[inject.ServiceAccount], p *policy.Policy) outcome {
			account := &r.Object
			// A new object may have no namespace. The request's namespace then applies.
			account.Metadata.Namespace = r.Namespace
			operations, decision := inject.Annotate(account, injection, p)
			return outcome{Decision: decision, operations: operations, attrs: []slog.Attr{logged("serviceAccount", account.Metadata.Name)}}
		},
	}
}
