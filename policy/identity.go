package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
)

// Issuer is the `iss` of a cluster's service-account tokens. It is compared
// byte for byte everywhere: AKS issuers end in a slash, and it counts.
type Issuer string

// UnmarshalText accepts what AWS accepts as a provider URL.
func (i *Issuer) UnmarshalText(text []byte) error {
	v := Issuer(text)
	if err := v.Validate(); v != "" && err != nil {
		return err
	}
	*i = v
	return nil
}

// issuerSyntax leaves out what would mean something to IAM where it is put into
// condition keys and ARNs (* ? $), or to a shell where it is shown (quotes, blanks).
var issuerSyntax = regexp.MustCompile(`^https://[a-zA-Z0-9.-]+(/[\w.~%:@,+=!-]*)*$`)

// maxIssuer is IAM's limit on a provider's URL, in characters.
const maxIssuer = 255

// Validate says whether AWS could register the issuer as an OIDC provider:
// https, a host, no port, no query
// (https://docs.aws.amazon.com/IAM/latest/APIReference/API_CreateOpenIDConnectProvider.html).
// The error does not show a user or password.
func (i Issuer) Validate() error {
	u, err := url.Parse(string(i))
	switch {
	case err != nil || u.User != nil:
		return errors.New("not an issuer: AWS takes https://<host>/<path>, without a user, byte for byte the `iss` of the cluster's tokens")
	case u.Port() != "" || strings.ContainsAny(string(i), "?#"):
		return fmt.Errorf(
			"%q has a port, query or fragment: AWS registers issuers without; change the API server's --service-account-issuer",
			string(i),
		)
	case len(i) > maxIssuer:
		return fmt.Errorf(
			"has %d characters: AWS takes issuers of %d at most; change the API server's --service-account-issuer",
			len(i),
			maxIssuer,
		)
	case !issuerSyntax.MatchString(string(i)):
		return fmt.Errorf(
			"%q is not an issuer: AWS takes https://<host>/<path>, byte for byte the `iss` of the cluster's tokens",
			string(i),
		)
	}
	return nil
}

// privateNames end the names of hosts that only a private network knows.
var privateNames = []string{
	"local", "localhost", "localdomain", "internal", "intranet", "private", "corp", "lan", "home", "home.arpa", "svc",
}

// sharedAddresses are those that carriers give their customers (RFC 6598).
var sharedAddresses = netip.MustParsePrefix("100.64.0.0/10")

// unreachable returns why AWS cannot read the issuer's keys, and the fix; empty: its
// name does not tell. AWS reads them over the public internet.
func (i Issuer) unreachable() string {
	host, _, _ := strings.Cut(i.Host(), "/")
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == "" {
		return ""
	}
	const fix = "AWS reads the issuer's keys over the public internet; let the cluster have a public issuer, such as " +
		"`ampbridge issuer publish` fills"
	if ip, err := netip.ParseAddr(host); err == nil {
		local := ip.IsPrivate() || ip.IsLoopback() || ip.IsLinkLocalUnicast() || ip.IsUnspecified() || ip.IsMulticast()
		if local || sharedAddresses.Contains(ip) {
			return fmt.Sprintf("%s has the private address %s: %s", i, ip, fix)
		}
		return ""
	}
	private := !strings.Contains(host, ".")
	for _, end := range privateNames {
		private = private || strings.HasSuffix(host, "."+end)
	}
	if private {
		return fmt.Sprintf("%s has the name %s, which only a private network knows: %s", i, host, fix)
	}
	return ""
}

// Host is the issuer without https://: the prefix of IAM's condition keys and
// the name of the provider, trailing slash included.
func (i Issuer) Host() string { return strings.TrimPrefix(string(i), "https://") }

// ProviderARN is the OIDC provider's ARN in an account.
func (i Issuer) ProviderARN(partition, account string) ARN {
	return ARN{Partition: partition, Service: "iam", Account: account, Resource: "oidc-provider/" + i.Host()}
}

// Subject is the `sub` of a service account's tokens.
type Subject struct{ Namespace, ServiceAccount string }

const subjectPrefix = "system:serviceaccount:"

func (s Subject) String() string { return subjectPrefix + s.Namespace + ":" + s.ServiceAccount }

// dnsSubdomain is what a service account may be named; a namespace has a DNS
// label (https://kubernetes.io/docs/concepts/overview/working-with-objects/names/).
var dnsSubdomain = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$`)

const maxSubdomain = 253

// ParseSubject reads system:serviceaccount:<namespace>:<name>, with names that
// Kubernetes could have given. Others, with a * or ${…} in them, mean something
// to IAM that no service account does.
func ParseSubject(s string) (Subject, error) {
	rest, found := strings.CutPrefix(s, subjectPrefix)
	ns, sa, _ := strings.Cut(rest, ":")
	if !found || !dnsLabel.MatchString(ns) || !dnsSubdomain.MatchString(sa) || len(sa) > maxSubdomain {
		return Subject{}, fmt.Errorf("%q is not a subject: write system:serviceaccount:<namespace>:<name>", s)
	}
	return Subject{ns, sa}, nil
}

// Owner is written into the tags of everything that sync creates, and checked
// before every write. It depends on name and issuer, so that two clusters that
// share either never take each other's roles for their own. 32 hex digits.
func Owner(cluster string, issuer Issuer) string {
	// The line feed cannot occur in a cluster name: no two pairs run together.
	sum := sha256.Sum256([]byte(cluster + "\n" + string(issuer)))
	return hex.EncodeToString(sum[:16])
}

// maxRoleName is IAM's limit on a role name, in characters.
const maxRoleName = 64

// RoleName is the name of the role that a cluster uses for a destination.
// Role names are unique in an account whatever their path, so the name carries
// both parts, divided by a dot that neither may hold. See [rolePrefix] and
// [LimitRoleName] for long names.
func RoleName(cluster, destination string) string {
	return LimitRoleName(rolePrefix(cluster, destinationClusterPart) + destination)
}

// LimitRoleName returns a name that IAM accepts for a role. A name that is too long is
// cut, and ends in a dot and a hash of the whole name.
func LimitRoleName(name string) string {
	const digits = 12
	if len(name) <= maxRoleName {
		return name
	}
	return cutRoleName(name, "."+digest(name, digits))
}

// cutRoleName returns the beginning of a name that is too long, and the tail.
func cutRoleName(name, tail string) string {
	return name[:maxRoleName-len(tail)] + tail
}

// A role's name carries its subject, which whoever may create service accounts
// chooses. So the hash of a cut name is long, and follows an underscore, which no
// name of Kubernetes's has: nobody can choose one that meets another's.
const (
	// clusterPart is how many characters of such a role's name are the cluster's,
	// and destinationClusterPart of a destination's role: what is left takes the hash
	// of a name that is too long.
	clusterPart            = 20
	destinationClusterPart = 40
	// hashDigits end a cut name: 96 bits.
	hashDigits = 24
)

// ServiceAccountRoleName is the name of the role that one service account of a
// cluster uses for a destination: see [RoleScopeServiceAccount]. It carries all
// four names, divided by dots, which only the last may hold.
func ServiceAccountRoleName(cluster, destination string, s Subject) string {
	name := rolePrefix(cluster, clusterPart) + destination + "." + s.Namespace + "." + s.ServiceAccount
	if len(name) <= maxRoleName {
		return name
	}
	return cutRoleName(name, "_"+digest(cluster+"."+destination+"."+s.Namespace+"."+s.ServiceAccount, hashDigits))
}

// rolePrefix begins the names of roles of the cluster, and of no other cluster's:
// permissions go by it. A cluster's name that is too long is cut, and ends in an
// underscore, which no cluster's name has, and a hash of the whole.
func rolePrefix(cluster string, most int) string {
	const hash = 12
	if len(cluster) > most {
		cluster = cluster[:most-hash-1] + "_" + digest(cluster, hash)
	}
	return "ampbridge." + cluster + "."
}

// digest is the beginning of the text's SHA-256, in hex digits.
func digest(text string, digits int) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])[:digits]
}

// RolePath is the end of the IAM path of all roles of a cluster.
func RolePath(cluster string) string { return "/" + pathPart + "/" + cluster + "/" }

const pathPart = "ampbridge"

// RolePath is the IAM path of all roles of the cluster: what trust.rolePath begins
// with, and a part of the cluster's own.
func (p *Policy) RolePath() string {
	return strings.TrimSuffix(p.Trust.RolePath, "/") + RolePath(p.Cluster.Name)
}

// RoleFor is the role that the sidecar of a pod of s assumes for d, as
// trust.roleScope has it.
func (p *Policy) RoleFor(d Destination, s Subject) ARN {
	if p.Trust.RoleScope == RoleScopeServiceAccount {
		return p.ServiceAccountRole(d, s)
	}
	return p.Role(d)
}

// Role is the one role of a destination: the admin's, or sync's own in the
// workspace's account. Which role somebody assumes is [Policy.RoleFor]'s to say.
func (p *Policy) Role(d Destination) ARN {
	return p.role(d, RoleName(p.Cluster.Name, d.Name))
}

// ServiceAccountRole is the role for d of one service account alone, or the
// admin's.
func (p *Policy) ServiceAccountRole(d Destination, s Subject) ARN {
	return p.role(d, ServiceAccountRoleName(p.Cluster.Name, d.Name, s))
}

func (p *Policy) role(d Destination, name string) ARN {
	if !d.Role.IsZero() {
		return d.Role
	}
	return ARN{
		Partition: d.Workspace.Partition, Service: "iam", Account: d.Workspace.Account,
		Resource: "role" + p.RolePath() + name,
	}
}

// Boundary is the permissions boundary of roles in an account: the policy of the
// name that trust.permissionsBoundary says, because IAM takes a boundary of the
// role's own account alone. AWS's own policies are in every account.
func (p *Policy) Boundary(partition, account string) ARN {
	b := p.Trust.PermissionsBoundary
	b.Partition = partition
	if b.Account != "aws" {
		b.Account = account
	}
	return b
}

// Glob matches names; `*` stands for any run of characters, and is the only
// wildcard.
type Glob string

var globSyntax = regexp.MustCompile(`^[a-z0-9*]([a-z0-9.*-]*[a-z0-9*])?$`)

// UnmarshalText accepts Kubernetes names with `*` in them.
func (g *Glob) UnmarshalText(text []byte) error {
	if !globSyntax.Match(text) {
		return fmt.Errorf("%q is not a name or pattern: write a Kubernetes name, where * stands for any characters", text)
	}
	*g = Glob(text)
	return nil
}

// Match reports whether name matches g.
func (g Glob) Match(name string) bool {
	// It runs for each grant and each pod, so it makes no list of the parts.
	part, pattern, wild := strings.Cut(string(g), "*")
	if !wild {
		return name == part
	}
	rest, found := strings.CutPrefix(name, part)
	for found {
		if part, pattern, wild = strings.Cut(pattern, "*"); !wild {
			return strings.HasSuffix(rest, part)
		}
		_, rest, found = strings.Cut(rest, part)
	}
	return false
}

// everything reports whether g is only stars.
func (g Glob) everything() bool { return strings.Trim(string(g), "*") == "" }

func matchAny(globs []Glob, name string) bool {
	for _, g := range globs {
		if g.Match(name) {
			return true
		}
	}
	return false
}
