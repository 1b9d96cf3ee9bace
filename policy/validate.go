package policy

import (
	"cmp"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Quantity is a Kubernetes quantity such as 10m or 32Mi, checked by [Parse]; empty means none.
type Quantity string

var quantitySyntax = regexp.MustCompile(`^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$`)

// UnmarshalText accepts quantities that are not negative; "" means none.
func (q *Quantity) UnmarshalText(text []byte) error {
	if len(text) > 0 && !quantitySyntax.Match(text) {
		return fmt.Errorf("%q is not a quantity: write it like 10m, 0.5 or 64Mi", text)
	}
	*q = Quantity(text)
	return nil
}

// value returns the quantity as a number.
func (q Quantity) value() float64 {
	digits := strings.TrimRight(string(q), "mkMGTi")
	n, err := strconv.ParseFloat(digits, 64)
	if err != nil {
		return 0
	}
	return n * quantitySuffixes[string(q)[len(digits):]]
}

var quantitySuffixes = map[string]float64{
	"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40,
}

// leastVolumeSize holds two copies of the largest ConfigMap, and the file that is edited.
const leastVolumeSize = 4 << 20

// defaultVolumeSize returns a quarter of the sidecar's memory limit. The sidecar fills two
// volumes. One holds the current and the next set of the files that Prometheus reads; the other
// holds the last set that loaded and its successor.
func defaultVolumeSize(memory Quantity) Quantity {
	if memory.value() == 0 {
		return "64Mi" // there is no limit
	}
	return Quantity(fmt.Sprintf("%dMi", int64(max(memory.value()/4, leastVolumeSize))>>20))
}

func (v *validation) volumeSize(s Sidecar) {
	size, memory := s.VolumeSizeLimit.value(), s.Resources.Limits.Memory.value()
	v.require(
		size >= leastVolumeSize,
		"sidecar.volumeSizeLimit",
		"%s is too little: two copies of a ConfigMap must fit; write 4Mi or more",
		s.VolumeSizeLimit,
	)
	v.require(
		memory == 0 || size <= max(memory/2, leastVolumeSize),
		"sidecar.volumeSizeLimit",
		"%s is more than half of sidecar.resources.limits.memory (%s): the sidecar fills two memory volumes, which count "+
			"against that limit; write less, or raise the limit",
		s.VolumeSizeLimit,
		s.Resources.Limits.Memory,
	)
}

func (v *validation) securityContext(path string, s SecurityContext) {
	switch file, local := strings.CutPrefix(s.SeccompProfile, SeccompLocalhost); {
	case local:
		v.require(
			seccompFile.MatchString(file) && !strings.Contains("/"+file+"/", "/../"),
			path+".seccompProfile",
			"%q is not a file below the kubelet's seccomp directory: write it like Localhost/profiles/ampbridge.json",
			s.SeccompProfile,
		)
	default:
		v.requireNo(unknown(s.SeccompProfile, SeccompAuto, SeccompRuntimeDefault, SeccompNone, SeccompLocalhost+"<file>"),
			path+".seccompProfile")
	}
	v.require(
		s.RunAsUser == nil || *s.RunAsUser > 0,
		path+".runAsUser",
		"must be 1 or more: the sidecar needs no root; remove it for Prometheus's own user",
	)
	v.require(
		s.RunAsGroup == nil || *s.RunAsGroup >= 0,
		path+".runAsGroup",
		"must be 0 or more: remove it for Prometheus's own group",
	)
}

var (
	seccompFile = regexp.MustCompile(`^[\w.-]+(/[\w.-]+)*$`)

	number    = regexp.MustCompile(`^[0-9]{1,9}$`)
	dnsLabel  = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	labelName = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)
	// externalIDSyntax is the syntax of IAM
	// (https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html). Its repetition is
	// split, because Go allows at most 1,000 repetitions.
	externalIDSyntax = regexp.MustCompile(`^[\w+=,.@:/-]{2,1000}[\w+=,.@:/-]{0,224}$`)
	// audienceSyntax excludes ${…}, which IAM would read as a variable in a trust document.
	audienceSyntax = regexp.MustCompile(`^[\w.:/@+=~-]{1,255}$`)
)

// Limits of AWS and the kubelet.
const (
	minSession, maxSession = 15 * time.Minute, 12 * time.Hour
	minToken, maxToken     = 600, 86400
)

// relabelActions are the actions that Prometheus 2.26 already has. That is the oldest version
// with sigv4.
var relabelActions = []string{"", "replace", "keep", "drop", "hashmod", "labelmap", "labeldrop", "labelkeep"}

// validation collects the broken rules of a decoded policy.
type validation struct{ errs Errors }

func (v *validation) require(ok bool, path, format string, args ...any) {
	if !ok {
		v.errs = append(v.errs, FieldError{Path: path, Problem: fmt.Sprintf(format, args...)})
	}
}

// requireNo records the problem of a field; an empty one is none.
func (v *validation) requireNo(problem, path string) { v.require(problem == "", path, "%s", problem) }

// unknown returns the problem with a value that is none of the known ones, and the fix; empty if
// the value is known.
func unknown[T ~string](value T, known ...T) string {
	if slices.Contains(known, value) {
		return ""
	}
	last := len(known) - 1
	return fmt.Sprintf("%q is unknown: write %s or %s", string(value), join(known[:last]), known[last])
}

func join[T ~string](values []T) string {
	texts := make([]string, len(values))
	for i, value := range values {
		texts[i] = string(value)
	}
	return strings.Join(texts, ", ")
}

func (p *Policy) validate() Errors {
	v := &validation{}
	v.require(p.APIVersion == APIVersion, "apiVersion", "is %q: this build reads %s", p.APIVersion, APIVersion)
	v.require(p.Kind == Kind, "kind", "is %q: write %s", p.Kind, Kind)
	v.require(
		dnsLabel.MatchString(p.Cluster.Name),
		"cluster.name",
		"%q is not a DNS label: write lower-case letters, digits and dashes, at most 63, such as dev-aks",
		p.Cluster.Name,
	)
	unreachable := p.Cluster.Issuer.Unreachable()
	v.require(unreachable == "", "cluster.issuer", "%s", unreachable)
	v.require(
		!p.Cluster.Issuer.lacksSlash(),
		"cluster.issuer",
		"%s lacks the slash at its end: the issuers of AKS end in a slash, and AWS compares them byte for byte; write %s/",
		p.Cluster.Issuer,
		p.Cluster.Issuer,
	)
	v.issuerCA(p.Cluster.IssuerCA)
	v.require(len(p.Destinations) > 0, "destinations", "is empty: name at least one workspace")
	for i, d := range p.Destinations {
		path := fmt.Sprintf("destinations[%d]", i)
		v.destination(path, d)
		first := slices.IndexFunc(p.Destinations, func(o Destination) bool { return o.Name == d.Name })
		v.require(first == i, path+".name", "%q is taken by destinations[%d]: names are unique", d.Name, first)
		first = slices.IndexFunc(p.Destinations, func(o Destination) bool { return o.Workspace.Account == d.Workspace.Account })
		v.require(
			p.Destinations[first].Workspace.Partition == d.Workspace.Partition || d.Workspace.IsZero(),
			path+".workspace",
			"is in partition %s, and destinations[%d] has account %s in %s: an account is in one partition",
			d.Workspace.Partition,
			first,
			d.Workspace.Account,
			p.Destinations[first].Workspace.Partition,
		)
		v.require(d.AssumeRole.IsZero() || d.AssumeRole != p.Role(d), path+".assumeRole",
			"equals role: a role that assumes itself is denied; remove assumeRole")
	}
	for i, g := range p.Grants {
		v.grant(fmt.Sprintf("grants[%d]", i), g, p)
	}
	v.token(p.Token)
	v.require(
		inside(time.Duration(p.Session.Duration), minSession, maxSession),
		"session.duration",
		"%s is outside STS's limits: write 15m to 12h",
		p.Session.Duration,
	)
	v.sts("sts", p.STS)
	for i, s := range p.Sidecar.ImagePullSecrets {
		v.require(s.Name != "", fmt.Sprintf("sidecar.imagePullSecrets[%d].name", i), "is empty: name a Secret")
	}
	v.volumeSize(p.Sidecar)
	v.securityContext("sidecar.securityContext", p.Sidecar.SecurityContext)
	v.trust(p)
	v.requireNo(unknown(p.Audit.Repair, RepairNone, RepairEvict), "audit.repair")
	return v.errs
}

// unmade returns an error for each placeholder of a workspace that does not exist yet. Only
// bootstrap accepts placeholders. For all other programs, the workspace does not exist.
func (p *Policy) unmade() Errors {
	v := &validation{}
	for i, d := range p.Destinations {
		v.require(
			!d.Workspace.IsNew(),
			fmt.Sprintf("destinations[%d].workspace", i),
			"is %s, a placeholder for a new workspace: run `ampbridge bootstrap --policy FILE --apply --write-policy FILE`, which makes "+
				"it and writes its ARN here; or write the ARN of a workspace that exists, "+
				"as `ampbridge bootstrap -o terraform` has it as an output",
			d.Workspace.ID(),
		)
	}
	return v.errs
}

func (v *validation) destination(path string, d Destination) {
	v.require(
		dnsLabel.MatchString(d.Name),
		path+".name",
		"%q is not a DNS label: write lower-case letters, digits and dashes, at most 63, such as central",
		d.Name,
	)
	v.require(!d.Workspace.IsZero(), path+".workspace", "is missing: copy the workspace's ARN, as `aws amp list-workspaces` prints it")
	for _, role := range []struct {
		field string
		arn   ARN
	}{{"role", d.Role}, {"assumeRole", d.AssumeRole}} {
		v.require(
			role.arn.IsZero() || role.arn.IsRole(),
			path+"."+role.field,
			"%s is not a role: write arn:<partition>:iam::<account>:role/<name>",
			role.arn,
		)
		v.require(role.arn.IsZero() || d.Workspace.IsZero() || role.arn.Partition == d.Workspace.Partition, path+"."+role.field,
			"is in partition %s, its workspace in %s: a role cannot be used in another partition", role.arn.Partition, d.Workspace.Partition)
	}
	v.require(
		d.ExternalID == "" || externalIDSyntax.MatchString(d.ExternalID),
		path+".externalID",
		"is not an external ID: write 2 to 1224 letters, digits and _ + = , . @ : / -",
	)
	v.require(
		d.ExternalID == "" || !d.AssumeRole.IsZero(),
		path+".externalID",
		"works only with assumeRole, which is missing: remove externalID, or set assumeRole",
	)
	v.sts(path+".sts", d.STS)
	v.endpoint(path+".endpoint", d.Endpoint)
	v.requireNo(d.Delivery.problem(), path+".delivery")
	v.access(path+".access", d.Access)
	v.remoteWrite(path+".remoteWrite", d.RemoteWrite)
}

func (v *validation) remoteWrite(path string, r RemoteWrite) {
	v.proxy(path+".proxyURL", r.ProxyURL)
	v.require(
		r.ProxyURL == "" || !r.ProxyFromEnvironment,
		path+".proxyFromEnvironment",
		"cannot be set together with proxyURL: remove one of the two",
	)
	v.caBundle(path+".caBundle", r.CABundle)
	v.require(
		r.RemoteTimeout == 0 || time.Duration(r.RemoteTimeout) >= time.Second,
		path+".remoteTimeout",
		"%s is too short for a write to AMP: write 1s or more, or remove it for 30s",
		r.RemoteTimeout,
	)
	q := r.QueueConfig
	for _, n := range []struct {
		field string
		value int
	}{{"capacity", q.Capacity}, {"maxShards", q.MaxShards}, {"minShards", q.MinShards}, {"maxSamplesPerSend", q.MaxSamplesPerSend}} {
		v.require(n.value >= 0, path+".queueConfig."+n.field, "%d is negative: write 1 or more, or remove it", n.value)
	}
	v.require(
		q.MinShards == 0 || q.MaxShards == 0 || q.MinShards <= q.MaxShards,
		path+".queueConfig.minShards",
		"%d exceeds maxShards %d",
		q.MinShards,
		q.MaxShards,
	)
	v.require(
		q.MinBackoff == 0 || q.MaxBackoff == 0 || q.MinBackoff <= q.MaxBackoff,
		path+".queueConfig.minBackoff",
		"%s exceeds maxBackoff %s",
		q.MinBackoff,
		q.MaxBackoff,
	)
	for i, rule := range r.WriteRelabelConfigs {
		v.relabel(fmt.Sprintf("%s.writeRelabelConfigs[%d]", path, i), rule)
	}
}

// relabel repeats Prometheus's own checks of a rule: a rule that Prometheus refuses
// would prevent it from starting.
func (v *validation) relabel(path string, r RelabelConfig) {
	v.require(
		slices.Contains(relabelActions, r.Action),
		path+".action",
		"%q is unknown: write one of %s",
		r.Action,
		strings.Join(relabelActions[1:], ", "),
	)
	if r.Regex != nil {
		_, err := regexp.Compile("^(?s:" + *r.Regex + ")$")
		v.require(err == nil, path+".regex", "is not a regular expression: %v", err)
	}
	for i, l := range r.SourceLabels {
		v.require(labelName.MatchString(l), fmt.Sprintf("%s.sourceLabels[%d]", path, i), "%q is not a label name", l)
	}
	// prometheus-operator's config reloader would read $( as the start of an environment variable.
	for _, text := range []struct {
		field string
		value *string
		fix   string
	}{{"replacement", r.Replacement, "write ${1}"}, {"regex", r.Regex, "write (?:$)("}, {"separator", r.Separator, "write another"}} {
		v.require(
			text.value == nil || !strings.Contains(*text.value, "$("),
			path+"."+text.field,
			"holds $(, which the operator's config reloader expands: %s",
			text.fix,
		)
	}
	needsTarget := r.Action == "" || r.Action == "replace" || r.Action == "hashmod"
	v.require(!needsTarget || r.TargetLabel != "", path+".targetLabel", "is missing: the action %s needs one", cmp.Or(r.Action, "replace"))
	target := strings.NewReplacer("${", "", "$", "", "}", "").Replace(r.TargetLabel)
	v.require(r.TargetLabel == "" || labelName.MatchString(target), path+".targetLabel", "%q is not a label name", r.TargetLabel)
	v.require(r.Action != "hashmod" || r.Modulus > 0, path+".modulus", "is missing: the action hashmod needs one of 1 or more")
	drops := r.Action == "labeldrop" || r.Action == "labelkeep"
	v.require(!drops || (len(r.SourceLabels) == 0 && r.TargetLabel == "" && r.Modulus == 0 && r.Separator == nil && r.Replacement == nil),
		path+".action", "%s needs a regex and nothing else", r.Action)
}

func (v *validation) grant(path string, g Grant, p *Policy) {
	v.require(len(g.Namespaces) > 0, path+".namespaces", "is empty: name the namespaces, such as monitoring or team-*")
	v.require(len(g.ServiceAccounts) > 0, path+".serviceAccounts", "is empty: name the service accounts, such as prometheus-k8s")
	for i, glob := range g.Namespaces {
		v.require(glob != "", fmt.Sprintf("%s.namespaces[%d]", path, i), "is empty: write a name or a pattern such as team-*")
	}
	for i, glob := range g.ServiceAccounts {
		v.require(glob != "", fmt.Sprintf("%s.serviceAccounts[%d]", path, i), "is empty: write a name or a pattern such as *-prometheus")
	}
	v.require(!slices.ContainsFunc(g.Namespaces, Glob.everything) || !slices.ContainsFunc(g.ServiceAccounts, Glob.everything),
		path, "grants every service account of every namespace: name the namespaces or the service accounts")
	v.require(len(g.Destinations) > 0, path+".destinations", "is empty: name the destinations that these service accounts may use")
	named := len(p.Destinations) > 0 &&
		!slices.ContainsFunc(p.Destinations, func(d Destination) bool { return !dnsLabel.MatchString(d.Name) })
	for i, name := range g.Destinations {
		at := fmt.Sprintf("%s.destinations[%d]", path, i)
		_, known := p.Destination(name)
		v.require(
			known || !named, // without a good name there is nothing to propose
			at,
			"%q is not a destination of this policy: add it under destinations, or write one of %s",
			name,
			strings.Join(names(p.Destinations), ", "),
		)
		v.require(slices.Index(g.Destinations, name) == i, at, "%q is listed twice: keep one", name)
	}
	v.require(
		g.MaxSubjectsPerNamespace >= 0,
		path+".maxSubjectsPerNamespace",
		"%d is negative: write 1 or more, or 0 for no limit",
		g.MaxSubjectsPerNamespace,
	)
	v.requireNo(g.Environment.problem(), path+".environment")
	// The group becomes the replacement in a relabelling rule, where $ has another meaning.
	v.require(!strings.Contains(g.HA, "$"), path+".ha", "%q holds a $: write a plain name", g.HA)
	v.require(!strings.Contains(g.HA, "/"), path+".ha", "%q holds a /, which separates the group from its workloads: write a plain name", g.HA)
	v.grantMode(path, g, p)
	v.grantAccess(path, g, p)
	v.require(!g.IRSA || len(g.Destinations) == 1, path+".irsa", "needs exactly one destination: the annotation holds one role")
}

func (v *validation) token(t Token) {
	v.require(
		audienceSyntax.MatchString(t.Audience),
		"token.audience",
		"%q is not an audience: write up to 255 letters, digits and . _ : / @ + = ~ -",
		t.Audience,
	)
	v.require(
		inside(t.ExpirationSeconds, minToken, maxToken),
		"token.expirationSeconds",
		"%d is outside Kubernetes's limits: write 600 to 86400",
		t.ExpirationSeconds,
	)
	v.requireNo(unknown(t.Source, TokenSourceProjected, TokenSourceAzure), "token.source")
}

func (v *validation) sts(path string, s STS) {
	v.endpoint(path+".endpoint", s.Endpoint)
	v.proxy(path+".proxyURL", s.ProxyURL)
	v.caBundle(path+".caBundle", s.CABundle)
}

func (v *validation) proxy(path, proxy string) {
	if proxy == "" {
		return
	}
	u, err := url.Parse(proxy)
	v.require(
		// prometheus-operator's config reloader would expand $(…).
		err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && !strings.Contains(proxy, "$"),
		path,
		"is not a proxy's URL: write http://<host>:<port>",
	)
	v.require(err != nil || u.User == nil, path, "holds a user or password, which every pod would show: use a proxy that needs none")
}

func (v *validation) caBundle(path, bundle string) {
	if bundle == "" {
		return
	}
	v.require(x509.NewCertPool().AppendCertsFromPEM([]byte(bundle)), path, "holds no certificate: paste the CA's PEM text")
	for block, rest := pem.Decode([]byte(bundle)); block != nil; block, rest = pem.Decode(rest) {
		v.require(block.Type == "CERTIFICATE", path, "holds a %s, which every pod would show: paste certificates alone", block.Type)
	}
}

func (v *validation) issuerCA(ca IssuerCA) {
	certificates, err := ca.certificates()
	v.require(err == nil, "cluster.issuerCA", "%v", err)
	v.require(
		err != nil || len(certificates) <= maxThumbprints,
		"cluster.issuerCA",
		"has %d certificates, and IAM accepts %d: paste the one at the top of what the issuer's server shows",
		len(certificates),
		maxThumbprints,
	)
}

// endpoint accepts https for any host, and http only for this machine, where the network cannot listen.
func (v *validation) endpoint(path, endpoint string) {
	if endpoint == "" {
		return
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.User != nil {
		v.require(false, path, "is not an endpoint: write https://<host>, without a user") // the error must not show a password
		return
	}
	if u.Hostname() == "" || (u.Path != "" && u.Path != "/") || strings.ContainsAny(endpoint, "?#") {
		v.require(false, path, "%q is not an endpoint: write https://<host>, without a path", endpoint)
		return
	}
	ip, err := netip.ParseAddr(u.Hostname())
	loopback := u.Hostname() == "localhost" || (err == nil && ip.IsLoopback())
	v.require(u.Scheme == "https" || (u.Scheme == "http" && loopback), path, "%q is not encrypted: write https://", endpoint)
	region := hostRegion(u.Hostname())
	v.require(region == "" || regionSyntax.MatchString(region), path,
		"%q: %q is not a region%s: write the region of the endpoint", endpoint, region, similarRegion(region))
}

func (v *validation) trust(p *Policy) {
	t := p.Trust
	v.requireNo(unknown(t.Manage, ManageRoles, ManageNone), "trust.manage")
	v.requireNo(unknown(t.RoleScope, RoleScopeDestination, RoleScopeServiceAccount), "trust.roleScope")
	v.require(
		time.Duration(t.Interval) >= time.Second,
		"trust.interval",
		"%s is too short: write 1s or more; 10m is plenty, since changes in the cluster do not wait for it",
		t.Interval,
	)
	v.require(
		t.PermissionsBoundary.IsZero() || t.PermissionsBoundary.IsPolicy(),
		"trust.permissionsBoundary",
		"%s is not a policy: write arn:<partition>:iam::<account>:policy/<name>",
		t.PermissionsBoundary,
	)
	v.require(
		t.PermissionsBoundary.Account != "aws" || t.PermissionsBoundary.Resource != "policy/AdministratorAccess",
		"trust.permissionsBoundary",
		"is AdministratorAccess, which bounds nothing: name a policy that allows aps:RemoteWrite, and sts:AssumeRole where a "+
			"destination has assumeRole",
	)
	err := CheckTags(t.Tags, maxPolicyTags)
	v.require(err == nil, "trust.tags", "%v", err)
	v.require(
		t.RolePath == "" || rolePathSyntax.MatchString(t.RolePath),
		"trust.rolePath",
		"%q is not a path: write it like /team/ or /team/metrics/, of letters, digits and _ + = , . @ : -",
		t.RolePath,
	)
	v.require(
		!strings.Contains("/"+t.RolePath+"/", "/"+pathPart+"/"),
		"trust.rolePath",
		"%q contains %s, which ampbridge appends itself, with the cluster's name: remove it",
		t.RolePath,
		pathPart,
	)
	v.require(
		len(p.RolePath()) <= maxPath,
		"trust.rolePath",
		"has %d characters, and %d with the cluster's own part: IAM accepts %d",
		len(t.RolePath),
		len(p.RolePath()),
		maxPath,
	)
	managed := t.Manage == ManageRoles && slices.ContainsFunc(p.Destinations, func(d Destination) bool { return d.Role.IsZero() })
	v.require(
		!managed || !t.PermissionsBoundary.IsZero(),
		"trust.permissionsBoundary",
		"is missing: every role that sync creates has one; name the policy, or write trust.manage: none",
	)
	for i, a := range t.Accounts {
		path := fmt.Sprintf("trust.accounts[%d]", i)
		v.require(accountID.MatchString(a.ID), path+".id", "%q is not an AWS account: write its 12 digits in quotes", a.ID)
		v.require(
			slices.IndexFunc(t.Accounts, func(o Account) bool { return o.ID == a.ID }) == i,
			path+".id",
			"%q is listed twice: keep one",
			a.ID,
		)
		v.require(
			a.SyncRole.IsZero() || (a.SyncRole.IsRole() && a.SyncRole.Account == a.ID),
			path+".syncRole",
			"%s is not a role of account %s: write arn:<partition>:iam::%s:role/<name>",
			a.SyncRole,
			a.ID,
			a.ID,
		)
	}
}

func inside[T int | time.Duration](v, low, high T) bool { return low <= v && v <= high }
