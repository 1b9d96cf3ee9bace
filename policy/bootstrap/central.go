package bootstrap

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/plan"
)

// SyncAudience is the audience of sync's own token. The sidecars' tokens may have another.
const SyncAudience = "sts.amazonaws.com"

// Input holds everything that the central part depends on.
type Input struct {
	Policy *policy.Policy
	Issuer policy.Issuer
	// Account is the account to prepare.
	Account string
	// Sync is sync's service account.
	Sync policy.Subject
	// Home is the account in which sync assumes a role with its own token; from there it
	// assumes the roles of other accounts. If empty, the account that [Home] returns.
	Home string
	// Aliases are the aliases of new workspaces, by destination. The default is the destination's name.
	Aliases map[string]string
	// Adopt names destinations. The cluster takes over the workspaces of these destinations if they
	// have no owner.
	Adopt []string
	// Tags are set on everything that bootstrap creates, in addition to ampbridge's own tags.
	Tags map[string]string
	// WorkspaceQuota is the number of workspaces that the account may have in a region; 0 means
	// [WorkspaceQuota].
	WorkspaceQuota int
	// PodIdentity lets EKS Pod Identity give sync's role to its pods in the account where sync begins.
	PodIdentity bool
	// PruneTrust removes the statements that others added to the trust document of sync's role.
	PruneTrust bool
}

// Central is the central part of one account.
type Central struct {
	Cluster string
	Issuer  policy.Issuer
	Owner   string
	Account string
	// Workspaces are the workspaces of the account's destinations.
	Workspaces []Workspace
	// Provider, Boundary and Sync are zero if sync does not manage trust. Boundary is
	// also zero if it is a managed policy of AWS itself.
	Provider  policy.ARN
	Audiences []string
	// Thumbprints are the thumbprints of cluster.issuerCA.
	Thumbprints []string
	// AdoptProvider lets the cluster take over a provider that has no owner.
	AdoptProvider bool
	Boundary      policy.ARN
	// Bound is the boundary's document.
	Bound policy.Document
	Sync  SyncRole
	// Tags are for everything except workspaces; the provider's tags are exactly those of sync.
	Tags map[string]string
	// extra are those Tags that are not ampbridge's own.
	extra map[string]string
	// finalBound is Bound with ids as long as those of real workspaces.
	finalBound     policy.Document
	longIDs        map[string]policy.Workspace
	workspaceQuota int
}

// Workspace is a workspace that a destination writes to.
type Workspace struct {
	Destination string
	// ARN is a placeholder if the workspace is new.
	ARN   policy.Workspace
	New   bool
	Alias string
	// AliasGiven is true if the user chose the alias; otherwise it is the destination's name.
	AliasGiven bool
	// Adopt lets the cluster take over the workspace if it has no owner.
	Adopt bool
	Tags  map[string]string
}

// SyncRole is the role that sync uses in the account.
type SyncRole struct {
	ARN                policy.ARN
	Trust, Permissions policy.Document
	Description        string
	// PruneTrust removes all statements from the role's trust document that are not in Trust.
	PruneTrust bool
}

// The ids of the statements that bootstrap writes to the trust document of sync's role.
const (
	sidToken       = "Token"
	sidHome        = "Home"
	sidPodIdentity = "PodIdentity"
)

// PodIdentityService is the principal of EKS Pod Identity.
const PodIdentityService = "pods.eks.amazonaws.com"

// podIdentity lets EKS Pod Identity assume the role for the pods of one service account. Pod
// Identity sends tags with each session and needs the permission for them.
func podIdentity(s policy.Subject) policy.Statement {
	return policy.Statement{
		Sid: sidPodIdentity, Effect: "Allow", Principal: &policy.Principal{"Service": {PodIdentityService}},
		Action: policy.Values{"sts:AssumeRole", "sts:TagSession"},
		Condition: map[string]map[string]policy.Values{"StringEquals": {
			"aws:RequestTag/kubernetes-namespace":       {s.Namespace},
			"aws:RequestTag/kubernetes-service-account": {s.ServiceAccount},
		}},
	}
}

// Accounts returns the accounts of the policy's destinations, in their order.
func Accounts(p *policy.Policy) []string {
	var list []string
	for _, d := range p.Destinations {
		if !slices.Contains(list, d.Workspace.Account) {
			list = append(list, d.Workspace.Account)
		}
	}
	return list
}

// Home returns the account in which sync begins: the one without a role under
// trust.accounts, or the account of the first destination if all have one. The error
// names the accounts that sync could not reach.
func Home(p *policy.Policy) (string, error) {
	targets := plan.Targets(p, "")
	if len(targets) == 0 {
		return "", nil
	}
	var direct []string
	for _, t := range targets {
		if syncRole(p, t.Account).IsZero() {
			direct = append(direct, t.Account)
		}
	}
	switch len(direct) {
	case 0:
		return targets[0].Account, nil
	case 1:
		return direct[0], nil
	}
	return "", fmt.Errorf(
		"sync uses one account directly, and assumes a role in every other; the accounts %s have no role in the policy: "+
			"add all but one of them to trust.accounts, each with a syncRole",
		strings.Join(direct, ", "),
	)
}

func syncRole(p *policy.Policy, account string) policy.ARN {
	for _, a := range p.Trust.Accounts {
		if a.ID == account {
			return a.SyncRole
		}
	}
	return policy.ARN{}
}

// role returns sync's role in an account: the one that the policy names, or the
// cluster's. Sync itself has no permission to change a role with that path and name.
func role(p *policy.Policy, partition, account string) policy.ARN {
	if named := syncRole(p, account); !named.IsZero() {
		return named
	}
	name := policy.LimitRoleName("ampbridge-sync." + p.Cluster.Name)
	return policy.ARN{Partition: partition, Service: "iam", Account: account, Resource: "role/" + name}
}

// Desired returns what the account needs. The error names what is missing in the policy.
func Desired(in Input) (Central, error) {
	c := Central{
		Cluster: in.Policy.Cluster.Name, Issuer: in.Issuer, Account: in.Account, Owner: policy.Owner(in.Policy.Cluster.Name, in.Issuer),
		Tags:           plan.Tags(in.Policy.Cluster.Name, policy.Owner(in.Policy.Cluster.Name, in.Issuer)),
		workspaceQuota: cmp.Or(in.WorkspaceQuota, WorkspaceQuota),
	}
	var err error
	if c.extra, err = allTags(in.Policy, in.Tags); err != nil {
		return Central{}, err
	}
	maps.Copy(c.Tags, c.extra)
	if err := c.workspaces(in); err != nil {
		return Central{}, err
	}
	targets := plan.Targets(in.Policy, in.Issuer)
	i := slices.IndexFunc(targets, func(t plan.Target) bool { return t.Account == in.Account })
	if i < 0 {
		return c, nil
	}
	home := in.Home
	if home == "" {
		if home, err = Home(in.Policy); err != nil {
			return Central{}, err
		}
	}
	j := slices.IndexFunc(targets, func(t plan.Target) bool { return t.Account == home })
	if j < 0 {
		return Central{}, fmt.Errorf("sync has nothing to do in account %s, so it cannot begin there: name another "+
			"account", home)
	}
	c.Provider, c.Audiences = targets[i].Provider, []string{in.Policy.Token.Audience}
	c.Thumbprints, c.AdoptProvider = in.Policy.Cluster.IssuerCA.Thumbprints(), in.Policy.Trust.AdoptProvider
	if b := in.Policy.Trust.PermissionsBoundary; b.Account != "aws" {
		c.Boundary = in.Policy.Boundary(c.Provider.Partition, in.Account)
		c.Bound = policy.BoundaryDocument(in.Policy, in.Account)
		c.longIDs = longIDs(in.Policy)
		c.finalBound = policy.BoundaryDocument(Resolve(in.Policy, c.longIDs), in.Account)
	}
	homeRole := role(in.Policy, targets[j].Provider.Partition, home)
	c.Sync = SyncRole{
		ARN:         role(in.Policy, c.Provider.Partition, in.Account),
		Permissions: policy.SyncPermissions(in.Policy, in.Issuer, in.Account),
		Description: "Sync of ampbridge in cluster " + in.Policy.Cluster.Name, PruneTrust: in.PruneTrust,
	}
	for _, arn := range []policy.ARN{c.Boundary, c.Sync.ARN} {
		if n := len(arn.Resource); n > maxPath {
			return Central{}, fmt.Errorf("%s: its path is too long: IAM accepts %d characters", arn, maxPath)
		}
	}
	if in.Account != home {
		if homeRole.Partition != c.Provider.Partition {
			return Central{}, fmt.Errorf(
				"account %s is in partition %s, and sync begins in %s, partition %s; a role cannot be used in both: run another "+
					"sync there, with a policy of its own",
				in.Account,
				c.Provider.Partition,
				home,
				homeRole.Partition,
			)
		}
		c.Sync.Trust = assumedBy(homeRole)
		return c, nil
	}
	if !slices.Contains(c.Audiences, SyncAudience) {
		c.Audiences = append(c.Audiences, SyncAudience)
	}
	c.Sync.Trust = policy.TrustDocument(c.Provider, in.Issuer, SyncAudience, []policy.Subject{in.Sync})
	c.Sync.Trust.Statement[0].Sid = sidToken
	if in.PodIdentity {
		c.Sync.Trust.Statement = append(c.Sync.Trust.Statement, podIdentity(in.Sync))
	}
	var others policy.Values
	for _, t := range targets {
		if t.Account != home && t.Provider.Partition == c.Provider.Partition {
			others = append(others, role(in.Policy, t.Provider.Partition, t.Account).String())
		}
	}
	if len(others) > 0 {
		slices.Sort(others)
		c.Sync.Permissions.Statement = append(c.Sync.Permissions.Statement,
			policy.Statement{Sid: "Accounts", Effect: "Allow", Action: assumeTagged, Resource: others})
	}
	return c, nil
}

// assumeTagged are the actions for a chained session, which passes on the tags of EKS Pod Identity.
var assumeTagged = policy.Values{"sts:AssumeRole", "sts:TagSession"}

// assumedBy trusts one role, and nothing else of its account.
func assumedBy(role policy.ARN) policy.Document {
	return policy.Document{Version: policy.DocumentVersion, Statement: []policy.Statement{{
		Sid: sidHome, Effect: "Allow", Principal: &policy.Principal{"AWS": {role.String()}}, Action: assumeTagged,
	}}}
}

// allTags returns the tags for everything that bootstrap creates, without ampbridge's own: the
// policy's tags and the tags that the user gave. A workspace has four tags of ampbridge's own.
func allTags(p *policy.Policy, asked map[string]string) (map[string]string, error) {
	all := maps.Clone(asked)
	if all == nil {
		all = map[string]string{}
	}
	if len(asked) > 0 {
		// The user's tags are checked alone first, so that the error is about one of them.
		if err := policy.CheckTags(asked, policy.MaxTags-4); err != nil {
			return nil, err
		}
	}
	for k, v := range p.Trust.Tags {
		for other, value := range asked {
			if strings.EqualFold(k, other) && (k != other || v != value) {
				return nil, fmt.Errorf("the tag %s=%s: the policy has %s: %s under trust.tags, which sync would put back: "+
					"change it there",
					other, value, k, v)
			}
		}
		all[k] = v
	}
	return all, policy.CheckTags(all, policy.MaxTags-4)
}

func (c *Central) workspaces(in Input) error {
	destinations := map[string]string{} // the destination of each placeholder
	for _, d := range in.Policy.Destinations {
		if d.Workspace.Account != in.Account {
			continue
		}
		w := Workspace{Destination: d.Name, ARN: d.Workspace, New: d.Workspace.IsNew(), Alias: d.Name}
		if alias, found := in.Aliases[d.Name]; found {
			w.Alias, w.AliasGiven = alias, true
		}
		if w.New {
			if w.Alias == "" || utf8.RuneCountInString(w.Alias) > 100 {
				return fmt.Errorf("the alias of destination %s: write 1 to 100 characters", d.Name)
			}
			if other, taken := destinations[d.Workspace.String()]; taken {
				return fmt.Errorf(
					"destinations %s and %s have the same placeholder %s for a new workspace: number them, as in %s-1",
					other,
					d.Name,
					d.Workspace,
					policy.NewWorkspace,
				)
			}
			destinations[d.Workspace.String()] = d.Name
		}
		w.Adopt = slices.Contains(in.Adopt, d.Name)
		w.Tags = maps.Clone(c.Tags)
		w.Tags[plan.TagDestination] = d.Name
		c.Workspaces = append(c.Workspaces, w)
	}
	for _, name := range in.Adopt {
		if d, found := in.Policy.Destination(name); !found || d.Workspace.IsNew() || d.Workspace.Account != in.Account {
			return fmt.Errorf("--adopt-workspace %s: the policy has no such destination with the ARN of a workspace in "+
				"account %s", name, in.Account)
		}
	}
	for name := range in.Aliases {
		if d, found := in.Policy.Destination(name); !found || !d.Workspace.IsNew() {
			return fmt.Errorf("the alias of %s: the policy has no such destination with a new workspace "+
				"(%s)", name, policy.NewWorkspace)
		}
	}
	return nil
}

// ClientToken returns the token with which AMP creates the workspace of a destination. AMP
// creates one workspace per token, so a call can be repeated if its answer was lost.
func ClientToken(owner, region, destination string) string {
	sum := sha256.Sum256([]byte(owner + "\n" + region + "\n" + destination))
	return hex.EncodeToString(sum[:])
}

// Resolve returns the policy with the ARNs of created workspaces instead of their placeholders.
func Resolve(p *policy.Policy, made map[string]policy.Workspace) *policy.Policy {
	resolved := *p
	resolved.Destinations = slices.Clone(p.Destinations)
	for i, d := range resolved.Destinations {
		if w, found := made[d.Workspace.String()]; found {
			resolved.Destinations[i].Workspace = w
		}
	}
	return &resolved
}
