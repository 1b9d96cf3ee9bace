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

// Issuer is the `iss` claim of a cluster's service-account tokens. It is always compared
// byte for byte: the issuers of AKS end in a slash, and that slash counts.
type Issuer string

// UnmarshalText accepts the issuers that AWS accepts as provider URL.
func (i *Issuer) UnmarshalText(text []byte) error {
	v := Issuer(text)
	if err := v.Validate(); v != "" && err != nil {
		return err
	}
	*i = v
	return nil
}

// issuerSyntax excludes characters with a meaning for IAM in condition keys and ARNs (* ? $),
// or for a shell (quotes, blanks).
var issuerSyntax = regexp.MustCompile(`^https://[a-zA-Z0-9.-]+(/[\w.~%:@,+=!-]*)*$`)

// maxIssuer is IAM's limit on a provider's URL, in characters.
const maxIssuer = 255

// discoveryPath is the end of the URL under which an issuer's discovery document is.
const discoveryPath = "/.well-known/openid-configuration"

// Validate returns an error if AWS cannot register the issuer as an OIDC provider.
// An issuer needs https and a host; a port or a query is not allowed
// (https://docs.aws.amazon.com/IAM/latest/APIReference/API_CreateOpenIDConnectProvider.html).
// The error does not show a user or password.
func (i Issuer) Validate() error {
	u, err := url.Parse(string(i))
	switch {
	case err != nil || u.User != nil:
		return errors.New("not an issuer: AWS accepts https://<host>/<path>, without a user, byte for byte the `iss` of the cluster's tokens")
	case u.Port() != "" || strings.ContainsAny(string(i), "?#"):
		return fmt.Errorf(
			"%q has a port, query or fragment: AWS registers issuers without; change the API server's --service-account-issuer",
			string(i),
		)
	case len(i) > maxIssuer:
		return fmt.Errorf(
			"has %d characters: AWS accepts issuers of at most %d; change the API server's --service-account-issuer",
			len(i),
			maxIssuer,
		)
	case strings.HasSuffix(string(i), discoveryPath):
		return fmt.Errorf(
			"%q is the URL of the issuer's discovery document: write the value of the document's field issuer", string(i))
	case issuerSyntax.MatchString("https://" + string(i)):
		return fmt.Errorf("%q has no scheme: write https://%s", string(i), string(i))
	case !issuerSyntax.MatchString(string(i)):
		return fmt.Errorf(
			"%q is not an issuer: AWS accepts https://<host>/<path>, byte for byte the `iss` of the cluster's tokens",
			string(i),
		)
	}
	return nil
}

// privateNames are the ends of host names that only a private network resolves.
var privateNames = []string{
	"local", "localhost", "localdomain", "internal", "intranet", "private", "corp", "lan", "home", "home.arpa", "svc",
}

// sharedAddresses are the addresses that providers share between customers (RFC 6598).
var sharedAddresses = netip.MustParsePrefix("100.64.0.0/10")

// Unreachable returns why AWS cannot read the issuer's keys, and the fix; empty if the name does
// not show a reason. AWS reads the keys over the public internet.
func (i Issuer) Unreachable() string {
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
		return fmt.Sprintf("%s has the name %s, which only a private network resolves: %s", i, host, fix)
	}
	return ""
}

// lacksSlash reports whether i is an issuer of AKS without the slash at its end. AKS has the same
// form of host in every cloud of Azure, such as azure.com, azure.us and azure.cn.
func (i Issuer) lacksSlash() bool {
	host, _, _ := strings.Cut(i.Host(), "/")
	return strings.Contains(strings.ToLower(host), ".oic.prod-aks.") && !strings.HasSuffix(string(i), "/")
}

// Host returns the issuer without https://, with its trailing slash. It is the prefix of IAM's
// condition keys and the provider's name.
func (i Issuer) Host() string { return strings.TrimPrefix(string(i), "https://") }

// ProviderARN returns the ARN of the OIDC provider in an account.
func (i Issuer) ProviderARN(partition, account string) ARN {
	return ARN{Partition: partition, Service: "iam", Account: account, Resource: "oidc-provider/" + i.Host()}
}

// Subject is the `sub` claim of a service account's tokens.
type Subject struct{ Namespace, ServiceAccount string }

const subjectPrefix = "system:serviceaccount:"

func (s Subject) String() string { return subjectPrefix + s.Namespace + ":" + s.ServiceAccount }

// dnsSubdomain matches the names that a service account can have. A namespace's name is a DNS
// label (https://kubernetes.io/docs/concepts/overview/working-with-objects/names/).
var dnsSubdomain = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$`)

const maxSubdomain = 253

// ParseSubject parses system:serviceaccount:<namespace>:<name>. It accepts only names that
// Kubernetes accepts, because IAM reads a * or ${…} in a name as a wildcard or a variable.
func ParseSubject(s string) (Subject, error) {
	rest, found := strings.CutPrefix(s, subjectPrefix)
	ns, sa, _ := strings.Cut(rest, ":")
	if !found || !dnsLabel.MatchString(ns) || !dnsSubdomain.MatchString(sa) || len(sa) > maxSubdomain {
		return Subject{}, fmt.Errorf("%q is not a subject: write system:serviceaccount:<namespace>:<name>", s)
	}
	return Subject{ns, sa}, nil
}

// Owner returns the owner of everything that sync creates: sync writes it into the tags, and
// checks it before every write. It depends on name and issuer, so that two clusters with the same
// name or the same issuer never change each other's roles. It has 32 hex digits.
func Owner(cluster string, issuer Issuer) string {
	// A cluster's name cannot contain a line feed, so two different pairs never give the same text.
	sum := sha256.Sum256([]byte(cluster + "\n" + string(issuer)))
	return hex.EncodeToString(sum[:16])
}

// maxRoleName is IAM's limit on a role name, in characters.
const maxRoleName = 64

// RoleName returns the name of a cluster's role for a destination. Role names are unique
// in an account, whatever their path. So the name contains both parts, separated by a dot, which
// neither part can contain. For long names see [rolePrefix] and [LimitRoleName].
func RoleName(cluster, destination string) string {
	return LimitRoleName(rolePrefix(cluster, destinationClusterPart) + destination)
}

// LimitRoleName returns a name that IAM accepts for a role. It cuts a name that is too long, and
// appends a dot and a hash of the whole name.
func LimitRoleName(name string) string {
	const digits = 12
	if len(name) <= maxRoleName {
		return name
	}
	return cutRoleName(name, "."+digest(name, digits))
}

// cutRoleName returns the beginning of a name that is too long, followed by the tail.
func cutRoleName(name, tail string) string {
	return name[:maxRoleName-len(tail)] + tail
}

// A role's name contains the name of the service account, which its creator chooses. So the hash of
// a cut name is long, and comes after an underscore, which no Kubernetes name contains: it is not
// possible to choose a name that collides with another one.
const (
	// clusterPart is the number of characters for the cluster in such a role's name, and
	// destinationClusterPart in the name of a destination's role. The hash of a name that is too
	// long goes into the remaining characters.
	clusterPart            = 20
	destinationClusterPart = 40
	// hashDigits is the number of digits at the end of a cut name: 96 bits.
	hashDigits = 24
)

// ServiceAccountRoleName returns the name of a cluster's role for one destination and one service
// account: see [RoleScopeServiceAccount]. It contains all four names, separated by dots. Only
// the last name can contain a dot itself.
func ServiceAccountRoleName(cluster, destination string, s Subject) string {
	name := rolePrefix(cluster, clusterPart) + destination + "." + s.Namespace + "." + s.ServiceAccount
	if len(name) <= maxRoleName {
		return name
	}
	return cutRoleName(name, "_"+digest(cluster+"."+destination+"."+s.Namespace+"."+s.ServiceAccount, hashDigits))
}

// rolePrefix returns the beginning of the cluster's role names. No role name of another cluster has
// this beginning, because permissions depend on it. A cluster's name that is too long is cut and
// ends in an underscore, which no cluster's name contains, and a hash of the whole name.
func rolePrefix(cluster string, most int) string {
	const hash = 12
	if len(cluster) > most {
		cluster = cluster[:most-hash-1] + "_" + digest(cluster, hash)
	}
	return "ampbridge." + cluster + "."
}

// digest returns the first digits of the text's SHA-256, in hex.
func digest(text string, digits int) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])[:digits]
}

// RolePath returns the end of the IAM path of all roles of a cluster.
func RolePath(cluster string) string { return "/" + pathPart + "/" + cluster + "/" }

const pathPart = "ampbridge"

// RolePath returns the IAM path of all roles of the cluster: trust.rolePath, then the cluster's
// own part.
func (p *Policy) RolePath() string {
	return strings.TrimSuffix(p.Trust.RolePath, "/") + RolePath(p.Cluster.Name)
}

// RoleFor returns the role that the sidecar in a pod of s assumes for d. It depends on
// trust.roleScope.
func (p *Policy) RoleFor(d Destination, s Subject) ARN {
	if p.Trust.RoleScope == RoleScopeServiceAccount {
		return p.ServiceAccountRole(d, s)
	}
	return p.Role(d)
}

// Role returns the one role of a destination: the admin's, or sync's own in the workspace's
// account. For the role that a subject assumes, see [Policy.RoleFor].
func (p *Policy) Role(d Destination) ARN {
	return p.role(d, RoleName(p.Cluster.Name, d.Name))
}

// ServiceAccountRole returns the role for d of one service account alone, or the admin's.
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

// Boundary returns the permissions boundary for roles in an account. It has the name of
// trust.permissionsBoundary and is in the role's own account, because IAM accepts no other.
// The managed policies of AWS itself are available in every account.
func (p *Policy) Boundary(partition, account string) ARN {
	b := p.Trust.PermissionsBoundary
	b.Partition = partition
	if b.Account != "aws" {
		b.Account = account
	}
	return b
}

// Glob is a pattern for names. `*` stands for any characters and is the only wildcard.
type Glob string

var globSyntax = regexp.MustCompile(`^[a-z0-9*]([a-z0-9.*-]*[a-z0-9*])?$`)

// UnmarshalText accepts Kubernetes names that can contain `*`.
func (g *Glob) UnmarshalText(text []byte) error {
	if !globSyntax.Match(text) {
		return fmt.Errorf("%q is not a name or pattern: %s", text, globFix(string(text)))
	}
	*g = Glob(text)
	return nil
}

// globFix returns how to write what text probably means. Users paste a subject here as other programs
// print it.
func globFix(text string) string {
	full := strings.TrimPrefix(text, subjectPrefix)
	namespace, account, two := strings.Cut(strings.Replace(full, ":", "/", 1), "/")
	switch {
	case two && globSyntax.MatchString(namespace) && globSyntax.MatchString(account):
		return fmt.Sprintf("write %s under namespaces, and %s under serviceAccounts", namespace, account)
	case strings.HasPrefix(text, "arn:"):
		return "a grant names service accounts of Kubernetes, and ampbridge makes their role: write the service account's name"
	case strings.ContainsAny(text, ", "):
		return "write each name as an item of its own"
	}
	return "write a Kubernetes name, where * matches any characters"
}

// Match reports whether the pattern matches name.
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

// everything reports whether g consists of stars alone, so that it matches every name.
func (g Glob) everything() bool { return strings.Trim(string(g), "*") == "" }

func matchAny(globs []Glob, name string) bool {
	for _, g := range globs {
		if g.Match(name) {
			return true
		}
	}
	return false
}
