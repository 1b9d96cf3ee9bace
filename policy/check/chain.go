package check

// Link names one link of the chain. The names are part of the JSON output and do
// not change.
type Link string

// The links, in the order of [Chain].
const (
	Kubernetes     Link = "kubernetes"
	Policy         Link = "policy"
	IssuerMatches  Link = "issuer"
	Namespace      Link = "namespace"
	ServiceAccount Link = "service-account"
	Grant          Link = "grant"
	Registration   Link = "webhook"
	Endpoints      Link = "endpoints"
	Certificate    Link = "certificate"
	Injection      Link = "injection"
	TokenMinted    Link = "token"
	SigningKeys    Link = "keys"
	SyncLeads      Link = "sync"
	Account        Link = "account"
	OIDCProvider   Link = "provider"
	RoleExists     Link = "role"
	TrustDocument  Link = "trust"
	Permissions    Link = "permission"
	Boundary       Link = "boundary"
	Session        Link = "session"
	Workspace      Link = "workspace"
	Query          Link = "query"
	Write          Link = "write"
	Pods           Link = "pods"
	Identity       Link = "identity"
	Sidecar        Link = "sidecar"
	Flow           Link = "flow"
)

// Rung is a link, with what it asks and what it rests on.
type Rung struct {
	Link Link
	// Asks is the question that a ✓ answers with yes.
	Asks string
	// Needs are links that must not be broken for this one to be looked at: it
	// would fail because of them, and say nothing new.
	Needs []Link
}

// Chain is every link, from the cluster to the samples.
var Chain = []Rung{
	{Kubernetes, "does the API server answer?", nil},
	{Policy, "is the policy there, and free of mistakes?", nil},
	{IssuerMatches, "is the API server's issuer the policy's, byte for byte?", []Link{Kubernetes, Policy}},
	{Namespace, "does the namespace carry the label?", []Link{Kubernetes, Policy}},
	{ServiceAccount, "is the service account there, and not opted out?", []Link{Kubernetes, Policy}},
	{Grant, "does a grant cover it?", []Link{Policy}},
	{Registration, "is the webhook registered for pods of the namespace?", []Link{Kubernetes}},
	{Endpoints, "is a webhook pod ready behind its Service?", []Link{Kubernetes, Registration}},
	{Certificate, "does the API server's CA bundle vouch for the certificate that the webhook serves?", []Link{Kubernetes, Registration}},
	{Injection, "is a pod that is created in a dry run injected?", []Link{Kubernetes, Policy, Namespace, ServiceAccount, Grant, Registration, Endpoints, Certificate}},
	{TokenMinted, "is there a token of the right issuer, subject and audience, and is it fresh?", []Link{Kubernetes, IssuerMatches, ServiceAccount}},
	{SigningKeys, "can AWS read the issuer's discovery document, and do its keys hold the one that signed the token?", []Link{IssuerMatches}},
	{SyncLeads, "does sync run, and did its last pass succeed?", []Link{Kubernetes, Policy}},
	{Account, "are these credentials of the account that is to be looked at?", []Link{Policy}},
	{OIDCProvider, "does the account know the issuer, byte for byte, and take the audience?", []Link{Policy, IssuerMatches, Account}},
	{RoleExists, "is the role for the destination there?", []Link{Policy, Account}},
	{TrustDocument, "does its trust document let exactly this subject in, by issuer and audience?", []Link{IssuerMatches, Grant, RoleExists}},
	{Permissions, "does its permission document allow writing to the workspace?", []Link{RoleExists}},
	{Boundary, "does its permissions boundary?", []Link{RoleExists}},
	{Session, "does STS give a session for a real token?", []Link{TokenMinted, SigningKeys, Grant, OIDCProvider, RoleExists, TrustDocument}},
	{Workspace, "is the workspace there, and active?", []Link{Policy, Account}},
	{Query, "does the workspace answer a signed query?", []Link{Workspace}},
	{Write, "does it take a signed remote write of the session?", []Link{Session, Permissions, Boundary, Workspace, Query}},
	{Pods, "are the Prometheus pods that run injected?", []Link{Kubernetes, Policy, Namespace, ServiceAccount, Grant, Injection}},
	{Identity, "has everything in the Prometheus container the AWS identity that it needs?", []Link{Kubernetes}},
	{Sidecar, "has the config sidecar a valid session, and is the block served?", []Link{Pods, Session}},
	{Flow, "does remote_write deliver and keep up, without errors?", []Link{Sidecar, Write}},
}

// rung finds a link in the chain.
func rung(l Link) Rung {
	for _, r := range Chain {
		if r.Link == l {
			return r
		}
	}
	return Rung{Link: l}
}

// place is the link's position in the chain.
func place(l Link) int {
	for i, r := range Chain {
		if r.Link == l {
			return i
		}
	}
	return len(Chain)
}
