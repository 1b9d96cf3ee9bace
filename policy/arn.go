package policy

import (
	"fmt"
	"regexp"
	"strings"
)

// ARN is an Amazon Resource Name, arn:partition:service:region:account:resource
// (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference-arns.html).
// The zero value means that no ARN was given.
type ARN struct {
	Partition, Service, Region, Account, Resource string
}

var accountID = regexp.MustCompile(`^[0-9]{12}$`)

// ParseARN parses the six parts of an ARN. The resource may contain colons.
func ParseARN(s string) (ARN, error) {
	parts := strings.SplitN(s, ":", 6)
	if len(parts) != 6 || parts[0] != "arn" || parts[1] == "" || parts[2] == "" || parts[5] == "" {
		return ARN{}, fmt.Errorf("%q is not an ARN: write arn:<partition>:<service>:<region>:<account>:<resource>", s)
	}
	// Only the managed policies of AWS itself have an account that is not a number.
	awsPolicy := parts[2] == "iam" && parts[4] == "aws" && strings.HasPrefix(parts[5], "policy/")
	if parts[4] != "" && !awsPolicy && !accountID.MatchString(parts[4]) {
		return ARN{}, fmt.Errorf("%q has an account that is not 12 digits: copy the whole ARN, as AWS prints it", s)
	}
	return ARN{parts[1], parts[2], parts[3], parts[4], parts[5]}, nil
}

// UnmarshalText parses an ARN as [ParseARN] does. An empty text gives the zero ARN.
func (a *ARN) UnmarshalText(text []byte) (err error) {
	if len(text) == 0 {
		*a = ARN{}
		return nil
	}
	*a, err = ParseARN(string(text))
	return err
}

// MarshalText returns the ARN as a string.
func (a ARN) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// IsZero reports whether no ARN was given.
func (a ARN) IsZero() bool { return a == ARN{} }

func (a ARN) String() string {
	if a.IsZero() {
		return ""
	}
	return strings.Join([]string{"arn", a.Partition, a.Service, a.Region, a.Account, a.Resource}, ":")
}

// IAM allows more characters in a path, for example * and $. A policy document would read those
// as a wildcard and a variable, but an ARN here must name one thing.
var roleResource = regexp.MustCompile(`^role/([\w+=,.@:-]+/)*[\w+=,.@-]{1,64}$`)

// IsRole reports whether a names an IAM role, with or without a path.
func (a ARN) IsRole() bool {
	return a.Service == "iam" && a.Region == "" && a.Account != "" && roleResource.MatchString(a.Resource)
}

var policyResource = regexp.MustCompile(`^policy/([\w+=,.@:-]+/)*[\w+=,.@-]{1,128}$`)

// IsPolicy reports whether a names a managed IAM policy. Those of AWS itself have the account "aws".
func (a ARN) IsPolicy() bool {
	return a.Service == "iam" && a.Region == "" && policyResource.MatchString(a.Resource)
}

// RoleName returns the last part of a role's resource. It is the parameter RoleName of the IAM API,
// without the path.
func (a ARN) RoleName() string { return a.Resource[strings.LastIndexByte(a.Resource, '/')+1:] }

// Workspace is the ARN of an AMP workspace.
type Workspace struct{ ARN }

var workspaceResource = regexp.MustCompile(`^workspace/ws-[0-9a-zA-Z-]{1,120}$`)

// workspaceARN names the form of a workspace's ARN, and where to find it.
const workspaceARN = "ARN, arn:<partition>:aps:<region>:<account>:workspace/ws-…, as `aws amp list-workspaces` prints it"

// UnmarshalText accepts only ARNs of AMP workspaces.
func (w *Workspace) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		return nil
	}
	given := string(text)
	switch {
	case strings.HasPrefix(given, "ws-"):
		return fmt.Errorf("%q is the id of a workspace: write its %s", text, workspaceARN)
	case strings.HasPrefix(given, "https://"):
		return fmt.Errorf("%q is a URL: write the workspace's %s", text, workspaceARN)
	}
	a, err := ParseARN(given)
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
		return fmt.Errorf("%q: %q is not a region%s: copy the whole ARN, as `aws amp list-workspaces` prints it",
			text, a.Region, similarRegion(a.Region))
	case a.Partition != partitionOf(a.Region):
		return fmt.Errorf(
			"%q: region %s is in partition %s: write arn:%s:…",
			text,
			a.Region,
			partitionOf(a.Region),
			partitionOf(a.Region),
		)
	}
	*w = Workspace{a}
	return nil
}

// ID returns the workspace's id, for example ws-….
func (w Workspace) ID() string { return strings.TrimPrefix(w.Resource, "workspace/") }

// NewWorkspace is the beginning of a placeholder id, for a workspace that bootstrap will create, as
// in arn:aws:aps:eu-west-1:111122223333:workspace/ws-new. No real id has this beginning, because
// AWS writes a UUID after ws-, and a UUID contains no n and no w.
const NewWorkspace = "ws-new"

// IsNew reports whether the workspace does not exist yet: its id is a placeholder.
func (w Workspace) IsNew() bool { return strings.HasPrefix(strings.ToLower(w.ID()), NewWorkspace) }

// Host returns the regional host of AMP's data plane.
func (w Workspace) Host() string {
	return "aps-workspaces." + w.Region + "." + dnsSuffix(w.Partition)
}

// partitions come from AWS's partitions.json. All regions of a partition have the same prefix.
// A region without a listed prefix belongs to the commercial partition.
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
