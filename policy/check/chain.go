package check

// ID names one link of the chain. The names are part of the JSON output and do
// not change.
type ID string

// The links, in the order of [Chain].
const (
	Kubernetes     ID = "kubernetes"
	Policy         ID = "policy"
	IssuerMatches  ID = "issuer"
	Namespace      ID = "namespace"
	ServiceAccount ID = "service-account"
	Grant          ID = "grant"
	Registration   ID = "webhook"
	Endpoints      ID = "endpoints"
	Certificate    ID = "certificate"
	Injection      ID = "injection"
	TokenMinted    ID = "token"
	SigningKeys    ID = "keys"
	SyncLeads      ID = "sync"
	Account        ID = "account"
	OIDCProvider   ID = "provider"
	RoleExists     ID = "role"
	TrustDocument  ID = "trust"
	Permissions    ID = "permission"
	Boundary       ID = "boundary"
	Session        ID = "session"
	Workspace      ID = "workspace"
	Query          ID = "query"
	Write          ID = "write"
	Pods           ID = "pods"
	Identity       ID = "identity"
	Sidecar        ID = "sidecar"
	Flow           ID = "flow"
)

// Check is a link, with what it asks and what it rests on.
type Check struct {
	ID ID
	// Question is the question that a ✓ answers with yes.
	Question string
	// Needs are links that must not be broken for this one to be looked at: it
	// would fail because of them, and say nothing new.
	Needs []ID
}

// Chain is every link, from the cluster to the samples.
var Chain = []Check{
	{Kubernetes, "does the API server answer?", nil},
	{Policy, "is the policy there, and free of mistakes?", nil},
	{IssuerMatches, "is the API server's issuer the policy's, byte for byte?", []ID{Kubernetes, Policy}},
	{Namespace, "does the namespace carry the label?", []ID{Kubernetes, Policy}},
	{ServiceAccount, "is the service account there, and not opted out?", []ID{Kubernetes, Policy}},
	{Grant, "does a grant cover it?", []ID{Policy}},
	{Registration, "is the webhook registered for pods of the namespace?", []ID{Kubernetes}},
	{Endpoints, "is a webhook pod ready behind its Service?", []ID{Kubernetes, Registration}},
	{Certificate, "does the API server's CA bundle vouch for the certificate that the webhook serves?", []ID{Kubernetes, Registration}},
	{Injection, "is a pod that is created in a dry run injected?", []ID{Kubernetes, Policy, Namespace, ServiceAccount, Grant, Registration, Endpoints, Certificate}},
	{TokenMinted, "is there a token of the right issuer, subject and audience, and is it fresh?", []ID{Kubernetes, IssuerMatches, ServiceAccount}},
	{SigningKeys, "can AWS read the issuer's discovery document, and do its keys hold the one that signed the token?", []ID{IssuerMatches}},
	{SyncLeads, "does sync run, and did its last pass succeed?", []ID{Kubernetes, Policy}},
	{Account, "are these credentials of the account that is to be looked at?", []ID{Policy}},
	{OIDCProvider, "does the account know the issuer, byte for byte, and take the audience?", []ID{Policy, IssuerMatches, Account}},
	{RoleExists, "is the role for the destination there?", []ID{Policy, Account}},
	{TrustDocument, "does its trust document let exactly this subject in, by issuer and audience?", []ID{IssuerMatches, Grant, RoleExists}},
	{Permissions, "does its permission document allow writing to the workspace?", []ID{RoleExists}},
	{Boundary, "does its permissions boundary?", []ID{RoleExists}},
	{Session, "does STS give a session for a real token?", []ID{TokenMinted, SigningKeys, Grant, OIDCProvider, RoleExists, TrustDocument}},
	{Workspace, "is the workspace there, and active?", []ID{Policy, Account}},
	{Query, "does the workspace answer a signed query?", []ID{Workspace}},
	{Write, "does it take a signed remote write of the session?", []ID{Session, Permissions, Boundary, Workspace, Query}},
	{Pods, "are the Prometheus pods that run injected?", []ID{Kubernetes, Policy, Namespace, ServiceAccount, Grant, Injection}},
	{Identity, "has everything in the Prometheus container the AWS identity that it needs?", []ID{Kubernetes}},
	{Sidecar, "has the config sidecar a valid session, and is the block served?", []ID{Pods, Session}},
	{Flow, "does remote_write deliver and keep up, without errors?", []ID{Sidecar, Write}},
}

// checkOf finds a link in the chain.
func checkOf(l ID) Check {
	for _, r := range Chain {
		if r.ID == l {
			return r
		}
	}
	return Check{ID: l}
}

// position is the link's position in the chain.
func position(l ID) int {
	for i, r := range Chain {
		if r.ID == l {
			return i
		}
	}
	return len(Chain)
}
