package grantlist

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/bootstrap"
)

// Options are the values that a policy needs and the list does not have.
type Options struct {
	// Workspace is the workspace that the module created.
	Workspace policy.Workspace
	// Destination is its name in the policies.
	Destination string
	// Tags are the module's tags, which become trust.tags.
	Tags map[string]string
	// Source is the origin of the policies, for their comment; if empty, [Name].
	Source string
}

// Cluster is a policy made from the entries of one cluster.
type Cluster struct {
	Name   string
	Policy []byte
	// Entries are the indexes of the entries, counted from 0.
	Entries []int
}

// Finding is a message about one entry.
type Finding struct {
	Entry   int
	Subject string
	Message string
	// Lost is true if the entry is in no policy.
	Lost bool
}

func (f Finding) String() string {
	what := "note"
	if f.Lost {
		what = "not converted"
	}
	return fmt.Sprintf("%s[%d] (%s): %s: %s", Name, f.Entry, f.Subject, what, f.Message)
}

// Convert returns a policy for each issuer of the list, in the list's order.
func Convert(list []Entry, o Options) (clusters []Cluster, findings []Finding) {
	c := conversion{list: list, options: o}
	var issuers []string
	byIssuer := map[string][]int{}
	for i := range list {
		if !c.check(i) {
			continue
		}
		if byIssuer[list[i].Issuer] == nil {
			issuers = append(issuers, list[i].Issuer)
		}
		byIssuer[list[i].Issuer] = append(byIssuer[list[i].Issuer], i)
	}
	taken := map[string]bool{}
	for _, issuer := range issuers {
		entries := byIssuer[issuer]
		name := c.name(entries, taken)
		if name == "" {
			continue
		}
		taken[name] = true
		text := c.policy(name, issuer, entries)
		if _, err := policy.ParseDraft(text); err != nil {
			c.reject(entries, "the policy would not be valid: "+strings.ReplaceAll(err.Error(), "\n", "; "))
			continue
		}
		clusters = append(clusters, Cluster{name, text, entries})
	}
	return clusters, c.findings
}

type conversion struct {
	list     []Entry
	options  Options
	findings []Finding
}

// addFinding records a finding about entry i.
func (c *conversion) addFinding(i int, lost bool, format string, args ...any) {
	e := c.list[i]
	c.findings = append(c.findings, Finding{i, fmt.Sprintf("%q", e.Namespace+"/"+e.ServiceAccount), fmt.Sprintf(format, args...), lost})
}

// reject records that the entries are in no policy.
func (c *conversion) reject(entries []int, message string) {
	for _, i := range entries {
		c.addFinding(i, true, "%s", message)
	}
}

// check reports whether an entry can be converted, and records which parts of it are left out.
func (c *conversion) check(i int) bool {
	e := c.list[i]
	if err := policy.Issuer(e.Issuer).Validate(); err != nil {
		c.addFinding(i, true, "oidc_provider_url: %v", err)
		return false
	}
	if _, err := policy.ParseSubject(policy.Subject{Namespace: e.Namespace, ServiceAccount: e.ServiceAccount}.String()); err != nil {
		c.addFinding(i, true, "namespace %q and kube_service_account_name %q are not a valid service "+
			"account", e.Namespace, e.ServiceAccount)
		return false
	}
	if len(e.Audiences) > 0 && !slices.Contains(e.Audiences, bootstrap.SyncAudience) {
		c.addFinding(
			i,
			true,
			"oidc_provider_client_id_list %q lacks %s, the audience of the tokens that ampbridge asks for; set token.audience "+
				"by hand if it must be another",
			e.Audiences,
			bootstrap.SyncAudience,
		)
		return false
	}
	for _, audience := range e.Audiences {
		if audience != bootstrap.SyncAudience {
			c.addFinding(i, false, "the audience %q is not used: ampbridge's tokens have %s", audience, bootstrap.SyncAudience)
		}
	}
	if len(e.Thumbprints) > 0 {
		c.addFinding(
			i,
			false,
			"thumbprints are left out: AWS needs them only for private certificate authorities; with such an authority keep "+
				"the provider yourself (--existing-provider)",
		)
	}
	if e.ClusterURL != "" && e.ClusterURL != e.Issuer {
		c.addFinding(i, false, "eks_cluster_oidc_issuer_url is left out: tokens are issued by oidc_provider_url")
	}
	for _, name := range e.Unknown {
		c.addFinding(i, false, "the field %q is not known and is left out", name)
	}
	return true
}

// name returns the name of the cluster: its environment, plus the instance if another
// cluster has that name.
func (c *conversion) name(entries []int, taken map[string]bool) string {
	first := c.list[entries[0]]
	for _, text := range []string{first.Environment, first.Environment + "-" + first.Instance, first.Instance} {
		if name := dnsLabel(text); name != "" && !taken[name] {
			if name != first.Environment {
				c.addFinding(
					entries[0],
					false,
					"the cluster is called %s: environment_name %q is not a unique DNS label",
					name,
					first.Environment,
				)
			}
			for _, i := range entries[1:] {
				if other := c.list[i].Environment; other != first.Environment {
					c.addFinding(i, false, "environment_name %q: the issuer is that of cluster %s, so it is the same "+
						"cluster", other, name)
				}
			}
			return name
		}
	}
	c.reject(
		entries,
		fmt.Sprintf(
			"environment_name %q and instance_name %q give no unused name for the cluster: make one of them unique",
			first.Environment,
			first.Instance,
		),
	)
	return ""
}

var notInLabels = regexp.MustCompile(`[^a-z0-9]+`)

// dnsLabel returns the text as a DNS label; empty if no character is allowed in one.
func dnsLabel(text string) string {
	const most = 63
	label := strings.Trim(notInLabels.ReplaceAllString(strings.ToLower(text), "-"), "-")
	return strings.Trim(label[:min(len(label), most)], "-")
}

// policy returns the text of a cluster's policy. Every value was checked, so that YAML cannot
// read it as something else.
func (c *conversion) policy(name, issuer string, entries []int) []byte {
	var b strings.Builder
	boundary := policy.ARN{
		Partition: c.options.Workspace.Partition,
		Service:   "iam",
		Account:   c.options.Workspace.Account,
		Resource:  "policy/ampbridge-boundary." + name,
	}
	fmt.Fprintf(&b, `# Made by ampbridge bootstrap policy from %s. Every field is explained in docs/reference/policy.md.
apiVersion: %s
kind: %s
cluster:
  name: %s
  issuer: %s
destinations:
- name: %s
  workspace: %s
grants:
`, cmp.Or(c.options.Source, "an "+Name), policy.APIVersion, policy.Kind, name, issuer, c.options.Destination, c.options.Workspace)
	var namespaces []string
	accounts := map[string][]string{}
	for _, i := range entries {
		e := c.list[i]
		if accounts[e.Namespace] == nil {
			namespaces = append(namespaces, e.Namespace)
		}
		if slices.Contains(accounts[e.Namespace], e.ServiceAccount) {
			c.addFinding(i, false, "is the same service account of the same cluster as an earlier entry")
			continue
		}
		accounts[e.Namespace] = append(accounts[e.Namespace], e.ServiceAccount)
	}
	for _, namespace := range namespaces {
		for _, i := range entries {
			if text := strings.Join(strings.Fields(c.list[i].Description), " "); c.list[i].Namespace == namespace && text != "" {
				fmt.Fprintf(&b, "# %s\n", printable(text))
			}
		}
		fmt.Fprintf(&b, "- namespaces: [%q]\n  serviceAccounts:\n", namespace)
		for _, account := range accounts[namespace] {
			fmt.Fprintf(&b, "  - %q\n", account)
		}
		fmt.Fprintf(&b, "  destinations: [%s]\n", c.options.Destination)
	}
	fmt.Fprintf(&b, "trust:\n  permissionsBoundary: %s\n", boundary)
	if len(c.options.Tags) > 0 {
		b.WriteString("  tags:\n")
		for _, key := range slices.Sorted(maps.Keys(c.options.Tags)) {
			fmt.Fprintf(&b, "    %q: %q\n", key, c.options.Tags[key])
		}
	}
	return []byte(b.String())
}

// printable removes what YAML does not accept, even in comments.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) || r == 0x2028 || r == 0x2029 || r == 0xfeff || r == 0xfffd {
			return -1
		}
		return r
	}, text)
}
