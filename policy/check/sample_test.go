package check

import "strings"

// sample is a ladder as an examination finds it: one link is broken, one wants
// a look, and what rests on the broken one was not looked at.
func sample() Report {
	about := About{Subject: "system:serviceaccount:monitoring:prometheus", Destination: "central", Account: "111122223333"}
	destination := About{Destination: "central", Account: "111122223333"}
	subject := About{Subject: about.Subject}
	provider := "arn:aws:iam::111122223333:oidc-provider/westeurope.oic.prod-aks.azure.com/11111111-2222-3333-4444-555555555555/66666666-7777-8888-9999-000000000000/"
	e := Runner{Cluster: "dev-aks"}
	e.Add(
		Passed(Kubernetes, About{}, "https://dev-aks.hcp.westeurope.azmk8s.io:443, v1.34.2"),
		Passed(Policy, About{}, "ConfigMap ampbridge-system/ampbridge-policy: destinations central"),
		Passed(IssuerMatches, About{}, "https://westeurope.oic.prod-aks.azure.com/11111111-2222-3333-4444-555555555555/66666666-7777-8888-9999-000000000000/"),
		Passed(Namespace, subject, "monitoring carries ampbridge.io/injection=enabled"),
		Passed(ServiceAccount, subject, "it is there"),
		Passed(Grant, subject, "it may write to central"),
		Passed(Registration, About{}, "MutatingWebhookConfiguration ampbridge"),
		Passed(Endpoints, About{}, "2 ready behind ampbridge-system/ampbridge-webhook"),
		Warned(Certificate, About{}, NewFix("restart the webhook", Command{"kubectl", "rollout", "restart", "--namespace", "ampbridge-system", "deployment/ampbridge-webhook"}),
			"the certificate in Secret ampbridge-system/ampbridge-webhook-tls expires in 2 days, and nobody has renewed it"),
		Passed(Injection, subject, "injected, for central"),
		Passed(TokenMinted, subject, "minted by TokenRequest: %s, audience sts.amazonaws.com, for 10 minutes more", about.Subject),
		Passed(SigningKeys, About{}, "2 published, its certificate is of a public CA"),
		Passed(SyncLeads, About{}, "ampbridge-sync-6c5d8f7b9-x2x4q leads, and its last pass succeeded 3 minutes ago"),
		Passed(Account, About{Account: about.Account}, "as arn:aws:sts::111122223333:assumed-role/admin/jo"),
		Passed(OIDCProvider, About{Account: about.Account}, "%s, audience sts.amazonaws.com", provider),
		Passed(RoleExists, destination, "arn:aws:iam::111122223333:role/ampbridge/dev-aks/ampbridge.dev-aks.central"),
		Failed(TrustDocument, about, NewFix("write the trust document anew", Command{"aws", "iam", "update-assume-role-policy", "--role-name", "ampbridge.dev-aks.central", "--policy-document",
			`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Federated":"` + provider + `"}}]}`}),
			"the condition key is %s, and must be %s: the slash before :sub counts", strings.TrimSuffix(provider[len("arn:aws:iam::111122223333:oidc-provider/"):], "/")+":sub", provider[len("arn:aws:iam::111122223333:oidc-provider/"):]+":sub"),
		Passed(Permissions, destination, "allows aps:RemoteWrite on arn:aws:aps:eu-west-1:111122223333:workspace/ws-0123abcd"),
		Passed(Boundary, destination, "arn:aws:iam::111122223333:policy/ampbridge-boundary allows aps:RemoteWrite on arn:aws:aps:eu-west-1:111122223333:workspace/ws-0123abcd"),
	)
	e.Blocked(Session, about)
	e.Add(Passed(Workspace, About{Destination: "central"}, "ws-0123abcd is active"), Passed(Query, About{Destination: "central"}, "ws-0123abcd answers"))
	e.Blocked(Write, about)
	for _, l := range []ID{Pods, Identity} {
		e.Add(Skipped(l, subject, "no Prometheus pod of this service account runs"))
	}
	e.Blocked(Sidecar, subject)
	e.Blocked(Flow, subject)
	return e.Report()
}
