package policy

import (
	"fmt"
	"regexp"
	"strings"
)

// ARN is an Amazon Resource Name, arn:partition:service:region:account:resource
// (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference-arns.html).
// The zero value is "none given".
type ARN struct {
	Partition, Service, Region, Account, Resource string
}

var accountID = regexp.MustCompile(`^[0-9]{12}$`)

// ParseARN reads the six parts of an ARN; the resource may hold colons.
func ParseARN(s string) (ARN, error) {
	parts := strings.SplitN(s, ":", 6)
	if len(parts) != 6 || parts[0] != "arn" || parts[1] == "" || parts[2] == "" || parts[5] == "" {
		return ARN{}, fmt.Errorf("%q is not an ARN: write arn:<partition>:<service>:<region>:<account>:<resource>", s)
	}
	// Policies that AWS keeps itself, and they alone, have an account of letters.
	awsPolicy := parts[2] == "iam" && parts[4] == "aws" && strings.HasPrefix(parts[5], "policy/")
	if parts[4] != "" && !awsPolicy && !accountID.MatchString(parts[4]) {
		return ARN{}, fmt.Errorf("%q has an account that is not 12 digits", s)
	}
	return ARN{parts[1], parts[2], parts[3], parts[4], parts[5]}, nil
}

// UnmarshalText is [ParseARN]; the empty text is the zero ARN.
func (a *ARN) UnmarshalText(text []byte) (err error) {
	if len(text) == 0 {
		*a = ARN{}
		return nil
	}
	*a, err = ParseARN(string(text))
	return err
}

// MarshalText writes the ARN's usual form.
func (a ARN) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// IsZero tells whether no ARN was given.
func (a ARN) IsZero() bool { return a == ARN{} }

func (a ARN) String() string {
	if a.IsZero() {
		return ""
	}
	return strings.Join([]string{"arn", a.Partition, a.Service, a.Region, a.Account, a.Resource}, ":")
}

// IAM takes more in a path, * and $ among it, which a policy document would read
// as a wildcard and a variable: an ARN here names one thing.
var roleResource = regexp.MustCompile(`^role/([\w+=,.@:-]+/)*[\w+=,.@-]{1,64}$`)

// IsRole tells whether a names an IAM role, with or without a path.
func (a ARN) IsRole() bool {
	return a.Service == "iam" && a.Region == "" && a.Account != "" && roleResource.MatchString(a.Resource)
}

var policyResource = regexp.MustCompile(`^policy/([\w+=,.@:-]+/)*[\w+=,.@-]{1,128}$`)

// IsPolicy tells whether a names a managed IAM policy; AWS's own have the
// account "aws".
func (a ARN) IsPolicy() bool {
	return a.Service == "iam" && a.Region == "" && policyResource.MatchString(a.Resource)
}

// RoleName is the last part of a role's resource: what the IAM API calls
// RoleName, without the path.
func (a ARN) RoleName() string { return a.Resource[strings.LastIndexByte(a.Resource, '/')+1:] }

// Workspace is the ARN of an AMP workspace.
type Workspace struct{ ARN }

var (
	workspaceResource = regexp.MustCompile(`^workspace/ws-[0-9a-zA-Z-]{1,120}$`)
	// regionSyntax: the region becomes part of a host name.
	regionSyntax = regexp.MustCompile(`^[a-z]{2,8}(-[a-z]{2,16})+-[0-9]{1,2}$`)
)

// UnmarshalText accepts exactly the ARNs of AMP workspaces.
func (w *Workspace) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		return nil
	}
	a, err := ParseARN(string(text))
	if err != nil {
		return err
	}
	switch {
	case a.Service != "aps" || !workspaceResource.MatchString(a.Resource):
		return fmt.Errorf(
			"%q is not a workspace ARN: write arn:<partition>:aps:<region>:<account>:workspace/ws-…, as `aws amp list-workspaces` prints it",
			text,
		)
	case a.Region == "" || a.Account == "":
		return fmt.Errorf("%q lacks its region or account: copy the whole ARN, as `aws amp list-workspaces` prints it", text)
	case !regionSyntax.MatchString(a.Region):
		return fmt.Errorf("%q: %q is not a region: copy the whole ARN, as `aws amp list-workspaces` prints it", text, a.Region)
	case a.Partition != partitionOf(a.Region):
		return fmt.Errorf(
			"%q: region %s lies in partition %s: write arn:%s:…",
			text,
			a.Region,
			partitionOf(a.Region),
			partitionOf(a.Region),
		)
	}
	*w = Workspace{a}
	return nil
}

// ID is the workspace's id, ws-….
func (w Workspace) ID() string { return strings.TrimPrefix(w.Resource, "workspace/") }

// NewWorkspace begins the id of a workspace that is yet to be made, as in
// arn:aws:aps:eu-west-1:111122223333:workspace/ws-new. AWS's own ids go on with a
// UUID, in which there is no n and no w.
const NewWorkspace = "ws-new"

// IsNew reports whether the workspace is yet to be made: its id is a placeholder.
func (w Workspace) IsNew() bool { return strings.HasPrefix(strings.ToLower(w.ID()), NewWorkspace) }

// Host is the regional host of AMP's data plane.
func (w Workspace) Host() string {
	return "aps-workspaces." + w.Region + "." + dnsSuffix(w.Partition)
}

// partitions are listed in AWS's partitions.json; regions of a partition share
// a prefix. Everything else is the commercial partition.
var partitions = []struct{ regionPrefix, name, dnsSuffix string }{
	{"cn-", "aws-cn", "amazonaws.com.cn"},
	{"us-gov-", "aws-us-gov", "amazonaws.com"},
	{"us-iso-", "aws-iso", "c2s.ic.gov"},
	{"us-isob-", "aws-iso-b", "sc2s.sgov.gov"},
	{"eu-isoe-", "aws-iso-e", "cloud.adc-e.uk"},
	{"us-isof-", "aws-iso-f", "csp.hci.ic.gov"},
	{"eusc-", "aws-eusc", "amazonaws.eu"},
}

func partitionOf(region string) string {
	for _, p := range partitions {
		if strings.HasPrefix(region, p.regionPrefix) {
			return p.name
		}
	}
	return "aws"
}

func dnsSuffix(partition string) string {
	for _, p := range partitions {
		if p.name == partition {
			return p.dnsSuffix
		}
	}
	return "amazonaws.com"
}
