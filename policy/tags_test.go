package policy

import (
	"fmt"
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/test/testkit"
)

const taggedPolicy = `
apiVersion: ampbridge.io/v1alpha1
kind: Policy
cluster: {name: dev, issuer: "https://issuer.example/dev"}
destinations:
- {name: central, workspace: "arn:aws:aps:eu-west-1:111122223333:workspace/ws-0001"}
trust:
  permissionsBoundary: "arn:aws:iam::111122223333:policy/b"
`

func TestTagsAndRolePath(t *testing.T) {
	p, err := Parse([]byte(taggedPolicy + "  tags: {team: metrics, \"cost center\": \"4 2\", empty: \"\"}\n  rolePath: /team/a.b/\n"))
	testkit.Must(t, err)
	if len(p.Trust.Tags) != 3 || p.Trust.Tags["cost center"] != "4 2" {
		t.Errorf("tags %v", p.Trust.Tags)
	}
	if got := p.Role(p.Destinations[0]).Resource; got != "role/team/a.b/ampbridge/dev/ampbridge.dev.central" {
		t.Errorf("role %s", got)
	}
	// Sync changes roles on that path alone, and reads its names wherever they lie.
	for _, s := range SyncPermissions(p, p.Cluster.Issuer, "111122223333").Statement {
		for _, r := range s.Resource {
			if s.Effect == "Allow" && s.Sid != "ReadRoles" && strings.Contains(r, ":role/") &&
				!strings.HasPrefix(r, "arn:aws:iam::111122223333:role/team/a.b/ampbridge/dev/ampbridge.dev.") {
				t.Errorf("%s reaches %s", s.Sid, r)
			}
		}
	}
	many := func(n int) string {
		var list []string
		for i := range n {
			list = append(list, fmt.Sprintf("t%d: x", i))
		}
		return strings.Join(list, ", ")
	}
	if _, err := Parse([]byte(taggedPolicy + "  tags: {" + many(44) + "}\n")); err != nil {
		t.Error(err)
	}
	for name, c := range map[string]struct{ field, want string }{
		"a tag twice":              {`tags: {team: a, team: b}`, "trust.tags.team: is set twice"},
		"one key in two cases":     {`tags: {team: a, Team: b}`, "trust.tags: the tags Team and team are the same tag for IAM"},
		"ours":                     {`tags: {"ampbridge.io/owner": x}`, "trust.tags: the tag ampbridge.io/owner"},
		"AWS's":                    {`tags: {"AWS:x": x}`, "trust.tags: the tag AWS:x"},
		"too many":                 {`tags: {` + many(45) + `}`, "use at most 44"},
		"a number":                 {`tags: {team: 42}`, "trust.tags.team: must be a string, which YAML does not take 42 for"},
		"a list":                   {`tags: [team]`, "trust.tags: must be a mapping of names to strings"},
		"a character":              {`tags: {team: "a*"}`, `the tag "team" with the value "a*"`},
		"a path without its slash": {`rolePath: /team`, "trust.rolePath: \"/team\" is not a path"},
		"a path with a wildcard":   {`rolePath: /*/`, "trust.rolePath: \"/*/\" is not a path"},
		"a path of ours":           {`rolePath: /ampbridge/dev/`, "which ampbridge appends itself"},
		"a path too long":          {`rolePath: /` + strings.Repeat("x", 500) + `/`, "IAM accepts 512"},
	} {
		_, err := Parse([]byte(taggedPolicy + "  " + c.field + "\n"))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}
