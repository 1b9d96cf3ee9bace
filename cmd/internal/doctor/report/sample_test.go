package report

import (
	"fmt"
	"strings"
	"time"

	"github.com/ampbridge/ampbridge/policy/check"
)

// sample returns a report in which one check failed, one warns, and the checks that
// depend on the failed one are skipped.
func sample() check.Report {
	about := check.About{Subject: "system:serviceaccount:monitoring:prometheus", Destination: "central",
		Account: "111122223333"}
	destination := check.About{Destination: "central", Account: "111122223333"}
	subject := check.About{Subject: about.Subject}
	provider := "arn:aws:iam::111122223333:oidc-provider/westeurope.oic.prod-aks.azure.com/11111111-2222-3333-4444-555555555555/" +
		"66666666-7777-8888-9999-000000000000/"
	key := provider[len("arn:aws:iam::111122223333:oidc-provider/"):] + ":sub"
	otherKey := strings.Replace(key, "/:sub", ":sub", 1)
	r := check.Runner{Cluster: "dev-aks", Head: head()}
	r.Add(
		check.Passed(check.Kubernetes, check.About{}, "https://dev-aks.hcp.westeurope.azmk8s.io:443, v1.34.2"),
		check.Passed(check.Policy, check.About{}, "ConfigMap ampbridge-system/ampbridge-policy: destinations central"),
		check.Passed(
			check.IssuerMatches,
			check.About{},
			"https://westeurope.oic.prod-aks.azure.com/11111111-2222-3333-4444-555555555555/66666666-7777-8888-9999-000000000000/",
		),
		check.Passed(check.Namespace, subject, "monitoring carries ampbridge.io/injection=enabled"),
		check.Passed(check.ServiceAccount, subject, "the service account exists"),
		check.Passed(check.Grant, subject, "it may write to central"),
		check.Passed(check.Registration, check.About{}, "MutatingWebhookConfiguration ampbridge"),
		check.Passed(check.Endpoints, check.About{}, "2 ready behind ampbridge-system/ampbridge-webhook"),
		check.Warned(
			check.Certificate,
			check.About{},
			check.NewFix(
				"restart the webhook",
				check.Command{"kubectl", "rollout", "restart", "--namespace", "ampbridge-system", "deployment/ampbridge-webhook"},
			),
			"the certificate in Secret ampbridge-system/ampbridge-webhook-tls expires in 2 days, and was not renewed",
		),
		check.Passed(check.Injection, subject, "injected, for central"),
		check.Passed(
			check.TokenMinted,
			subject,
			"minted by TokenRequest: %s, audience sts.amazonaws.com, for 10 minutes more",
			about.Subject,
		),
		check.Passed(check.SigningKeys, check.About{}, "2 published, this machine trusts its certificate"),
		check.Passed(check.SyncLeads, check.About{}, "ampbridge-sync-6c5d8f7b9-x2x4q leads, and its last pass succeeded "+
			"3 minutes ago"),
		check.Passed(check.Account, check.About{Account: about.Account}, "as "+
			"arn:aws:sts::111122223333:assumed-role/admin/jo"),
		check.Passed(check.OIDCProvider, check.About{Account: about.Account}, "%s, audience sts.amazonaws.com", provider),
		check.Passed(check.RoleExists, destination, "arn:aws:iam::111122223333:role/ampbridge/dev-aks/ampbridge.dev-aks.central"),
		check.Failed(
			check.TrustDocument,
			about,
			check.NewFix(
				"replace the trust document",
				check.Command{"aws", "iam", "update-assume-role-policy", "--role-name", "ampbridge.dev-aks.central",
					"--policy-document",
					`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Federated":"` + provider + `"}}]}`},
			),
			"the condition key is %s, and must be %s: the slash before :sub counts",
			otherKey,
			key,
		).Comparing("condition key", key, otherKey),
		check.Passed(check.Permissions, destination, "allows aps:RemoteWrite on "+
			"arn:aws:aps:eu-west-1:111122223333:workspace/ws-0123abcd"),
		check.Passed(
			check.Boundary,
			destination,
			"arn:aws:iam::111122223333:policy/ampbridge-boundary.dev-aks allows aps:RemoteWrite on "+
				"arn:aws:aps:eu-west-1:111122223333:workspace/ws-0123abcd",
		),
	)
	r.Blocked(check.Session, about)
	r.Add(
		check.Passed(check.Workspace, check.About{Destination: "central"}, "ws-0123abcd is active"),
		check.Passed(check.Query, check.About{Destination: "central"}, "ws-0123abcd answers"),
	)
	r.Blocked(check.Write, about)
	for i := range 3 { // as many as in the head
		pod := check.About{Pod: fmt.Sprintf("monitoring/prometheus-%d", i), Subject: about.Subject}
		r.Add(
			check.Passed(check.Pods, pod, "injected, relay"),
			check.Passed(check.Identity, pod, "no AWS identity of its own"),
		)
	}
	r.Blocked(check.Sidecar, subject)
	r.Blocked(check.Flow, subject)
	return r.Report()
}

// head returns the head of a report of which everything is known.
func head() check.Head {
	return check.Head{
		Started: time.Date(2026, 11, 28, 10, 11, 12, 0, time.UTC), Seconds: 3.2, Context: "dev-aks-admin",
		PolicyRevision: "1f2e3d4c5b6a",
		Versions: check.Versions{
			Ampbridge: "v0.9.0", Kubernetes: "v1.34.2", Sidecars: map[string]int{"ghcr.io/ampbridge/ampbridge:v0.9.0": 3},
			Prometheus: map[string]int{"quay.io/prometheus/prometheus:v3.1.0": 2, "quay.io/prometheus/prometheus:v2.55.1": 1},
		},
	}
}
