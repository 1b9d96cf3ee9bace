package check

// ID names a check. The IDs are part of the JSON output and do not change.
type ID string

// The checks, in the order of [All].
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
	Workspace      ID = "workspace"
	OIDCProvider   ID = "provider"
	RoleExists     ID = "role"
	TrustDocument  ID = "trust"
	Permissions    ID = "permission"
	Boundary       ID = "boundary"
	Session        ID = "session"
	Query          ID = "query"
	Write          ID = "write"
	Read           ID = "read"
	Pods           ID = "pods"
	Identity       ID = "identity"
	Sidecar        ID = "sidecar"
	Flow           ID = "flow"
)

// Scope is the access that a check needs.
type Scope string

// The scopes of the checks, and what `ampbridge doctor --require` takes.
const (
	// ScopeCluster checks need the Kubernetes API alone.
	ScopeCluster Scope = "cluster"
	// ScopeAWS checks need AWS alone.
	ScopeAWS Scope = "aws"
	// ScopeAll checks need both. Most of them send AWS a token of the cluster.
	ScopeAll Scope = "all"
)

// Check is one question about the installation.
type Check struct {
	ID ID
	// Scope is the access that the check needs.
	Scope Scope
	// Question is answered with yes if the check passes.
	Question string
	// Needs lists the checks that this one depends on. If one of them failed, this
	// check is skipped: it would fail for the same reason.
	Needs []ID
}

// All lists every check, from the cluster to the samples.
var All = []Check{
	{Kubernetes, ScopeCluster, "does the API server answer?", nil},
	{Policy, ScopeAll, "does the policy exist, and is it valid?", nil},
	{IssuerMatches, ScopeCluster, "is the API server's issuer the policy's, byte for byte?", []ID{Kubernetes, Policy}},
	{Namespace, ScopeCluster, "does the namespace carry the label?", []ID{Kubernetes, Policy}},
	{ServiceAccount, ScopeCluster, "does the service account exist, without an opt-out?", []ID{Kubernetes, Policy}},
	{Grant, ScopeCluster, "does a grant cover it?", []ID{Policy}},
	{Registration, ScopeCluster, "is the webhook registered for pods of the namespace?", []ID{Kubernetes}},
	{Endpoints, ScopeCluster, "is a webhook pod ready behind its Service?", []ID{Kubernetes, Registration}},
	{
		Certificate, ScopeCluster, "does the API server's CA bundle verify the certificate that the webhook serves?",
		[]ID{Kubernetes, Registration},
	},
	{
		Injection, ScopeCluster, "is a pod that is created in a dry run injected?",
		[]ID{Kubernetes, Policy, Namespace, ServiceAccount, Grant, Registration, Endpoints, Certificate},
	},
	{
		TokenMinted, ScopeCluster, "is there a fresh token with the right issuer, subject and audience?",
		[]ID{Kubernetes, IssuerMatches, ServiceAccount},
	},
	{
		SigningKeys, ScopeAWS, "can AWS read the issuer's discovery document, and do its keys include the one that signed the token?",
		[]ID{IssuerMatches},
	},
	{SyncLeads, ScopeCluster, "does sync run, and did its last pass succeed?", []ID{Kubernetes, Policy}},
	{Account, ScopeAWS, "do these credentials belong to the account of the role?", []ID{Policy}},
	{Workspace, ScopeAWS, "does the workspace exist, and is it active?", []ID{Policy, Account}},
	{
		OIDCProvider, ScopeAWS, "does the account have an OIDC provider for exactly this issuer, with the audience?",
		[]ID{Policy, IssuerMatches, Account},
	},
	{RoleExists, ScopeAWS, "does the role for the destination exist?", []ID{Policy, Account, Workspace}},
	{
		TrustDocument, ScopeAWS, "does its trust document let exactly this subject in, by issuer and audience?",
		[]ID{IssuerMatches, Namespace, ServiceAccount, Grant, OIDCProvider, RoleExists},
	},
	{Permissions, ScopeAWS, "does its permission document allow what the destination's access says?", []ID{RoleExists}},
	{Boundary, ScopeAWS, "does its permissions boundary allow it?", []ID{RoleExists}},
	{
		Session, ScopeAll, "does STS give a session for a real token?",
		[]ID{TokenMinted, SigningKeys, Grant, OIDCProvider, RoleExists, TrustDocument},
	},
	{Query, ScopeAWS, "does the workspace answer a signed query?", []ID{Workspace}},
	{
		Write, ScopeAll, "does the workspace accept a remote write that the session signed?",
		[]ID{Session, Permissions, Boundary, Workspace, Query},
	},
	{
		Read, ScopeAll, "does the workspace answer a query that a reader's session signed?",
		[]ID{Session, Permissions, Boundary, Workspace},
	},
	{
		Pods, ScopeCluster, "are the running Prometheus pods injected?",
		[]ID{Kubernetes, Policy, Namespace, ServiceAccount, Grant, Injection},
	},
	{
		Identity, ScopeCluster, "does everything in the Prometheus container have the AWS identity that it needs?",
		[]ID{Kubernetes},
	},
	{Sidecar, ScopeCluster, "does the config sidecar have a valid session, and is the block served?", []ID{Pods, Session}},
	{Flow, ScopeCluster, "does remote_write deliver and keep up, without errors?", []ID{Sidecar, Write}},
}

// find returns the check with the ID.
func find(id ID) Check {
	for _, c := range All {
		if c.ID == id {
			return c
		}
	}
	return Check{ID: id}
}

// ScopeOf returns the scope of the check with the ID.
func ScopeOf(id ID) Scope { return find(id).Scope }

// position returns the index of the check in [All].
func position(id ID) int {
	for i, c := range All {
		if c.ID == id {
			return i
		}
	}
	return len(All)
}
