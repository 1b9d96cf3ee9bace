package bootstrap_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/amp"
	"github.com/aws/aws-sdk-go-v2/service/iam"

	"github.com/ampbridge/ampbridge/cmd/internal/cli"
	"github.com/ampbridge/ampbridge/test/testkit"
)

const threeDestinations = `# The policy of cluster dev.
apiVersion: ampbridge.io/v1alpha1
kind: Policy
cluster: {name: dev, issuer: "` + issuer + `"}
destinations:
- {name: central, workspace: "arn:aws:aps:eu-west-1:111122223333:workspace/ws-new-1"}
- {name: backup, workspace: "arn:aws:aps:eu-west-1:111122223333:workspace/ws-new-2"}
- {name: far, workspace: "arn:aws:aps:us-east-1:111122223333:workspace/ws-new"}
grants:
- {namespaces: [monitoring], serviceAccounts: [prometheus], destinations: [central, backup, far]}
trust: {permissionsBoundary: "` + boundary + `"}
`

func (f *fixture) amp(region string) *amp.Client {
	return amp.NewFromConfig(f.cloud.Config(f.account.AdminCredentials(), region))
}

// workspaceTags are those of all workspaces of the account, by ARN.
func (f *fixture) workspaceTags() map[string]map[string]string {
	f.Helper()
	found := map[string]map[string]string{}
	for _, region := range []string{"eu-west-1", "us-east-1"} {
		pages := amp.NewListWorkspacesPaginator(f.amp(region), &amp.ListWorkspacesInput{MaxResults: new(int32(2))})
		for pages.HasMorePages() {
			page, err := pages.NextPage(f.Context())
			testkit.Must(f, err)
			for _, w := range page.Workspaces {
				found[*w.Arn] = w.Tags
			}
		}
	}
	return found
}

// Whatever the flags are, and in whatever order they come: a destination has one
// workspace, and the boundary is as the first run wrote it.
func TestTwentyRunsMakeEachThingOnce(t *testing.T) {
	for seed := range uint64(3) {
		f := newFixture(t, threeDestinations)
		f.cloud.SetWorkspaceDelay(10 * time.Millisecond)
		for range 15 { // other people's, beyond one page
			f.account.CreateWorkspace("us-east-1", "theirs")
		}
		random := rand.New(rand.NewPCG(seed, 16))
		first := ""
		for run := range 20 {
			pairs := [][]string{
				{"--alias", "central=" + []string{"prometheus", "metrics"}[random.IntN(2)]},
				{"--alias", "far=" + []string{"prometheus", "metrics"}[random.IntN(2)]},
				{"--tag", fmt.Sprintf("team=%d", random.IntN(3))},
				{"--tag", "Cost Center=a b"},
				{"--home", accountID},
				{"--account", accountID},
				{"--write-policy", f.file + ".out"},
			}
			random.Shuffle(len(pairs), func(i, j int) { pairs[i], pairs[j] = pairs[j], pairs[i] })
			args := []string{"--apply", "--yes"}
			team := ""
			for _, pair := range pairs[:random.IntN(len(pairs)+1)] {
				args = append(args, pair...)
				if value, found := strings.CutPrefix(pair[1], "team="); found {
					team = value
				}
			}
			f.must(args...)
			owned := map[string]int{}
			for arn, tags := range f.workspaceTags() {
				if name := tags["ampbridge.io/destination"]; name != "" {
					owned[name]++
					if team != "" && tags["team"] != team {
						t.Errorf("seed %d, run %d, %s: %s has team %q, want %q", seed, run, args, arn, tags["team"], team)
					}
				}
			}
			if len(owned) != 3 || owned["central"] != 1 || owned["backup"] != 1 || owned["far"] != 1 {
				t.Fatalf("seed %d, run %d, %s: workspaces %v", seed, run, args, owned)
			}
			bound := f.boundary()
			if first == "" {
				first = bound
			}
			if bound != first {
				t.Fatalf("seed %d, run %d, %s: the boundary was %s, and is %s", seed, run, args, first, bound)
			}
		}
	}
}

// boundary is the version of the boundary.
func (f *fixture) boundary() string {
	f.Helper()
	client := iam.NewFromConfig(f.cloud.Config(f.account.AdminCredentials(), region))
	out, err := client.GetPolicy(f.Context(), &iam.GetPolicyInput{PolicyArn: new(boundary)})
	testkit.Must(f, err)
	return *out.Policy.PolicyId + " " + *out.Policy.DefaultVersionId
}

func TestTwoOwnedWorkspacesAreListed(t *testing.T) {
	f := newFixture(t, policyText)
	f.must("--apply", "--yes")
	var tags map[string]string
	arns := make([]string, 2)
	for arns[0], tags = range f.workspaceTags() {
	}
	made, err := f.amp(region).CreateWorkspace(t.Context(), &amp.CreateWorkspaceInput{Alias: new("second"), Tags: tags})
	testkit.Must(t, err)
	arns[1] = *made.Arn
	n := len(f.cloud.Calls())
	status, out, errs := f.run("", "--apply", "--yes", "--tag", "team=x")
	if status != cli.Failed || !strings.Contains(out, arns[0]) || !strings.Contains(out, arns[1]) ||
		!strings.Contains(out, "destination central has several workspaces") || len(f.writes(n)) > 0 {
		t.Errorf("status %d, %v\n%s%s", status, f.writes(n), out, errs)
	}
	// The policy's word decides.
	f.write(strings.Replace(policyText, "arn:aws:aps:eu-west-1:111122223333:workspace/ws-new", arns[0], 1))
	if out := f.must("--apply", "--yes"); strings.Contains(out, "was created before") {
		t.Errorf("the policy names it, and it is called made before:\n%s", out)
	}
	// One that is being deleted does not count.
	f.write(policyText)
	f.cloud.SetWorkspaceDelay(time.Hour)
	if _, err := f.amp(region).DeleteWorkspace(t.Context(), &amp.DeleteWorkspaceInput{
		WorkspaceId: new(arns[1][strings.LastIndex(arns[1], "/")+1:]),
	}); err != nil {
		t.Fatal(err)
	}
	if out := f.must(); !strings.Contains(out, arns[0]+": was created before for destination central") {
		t.Error(out)
	}
}

// A changed tag reaches everything that bootstrap made, and nothing else.
func TestChangedTagIsApplied(t *testing.T) {
	f := newFixture(t, policyText)
	theirs := f.account.CreateWorkspace(region, "theirs")
	f.must("--apply", "--yes", "--tag", "team=a", "--tag", "stage=dev")
	n := len(f.cloud.Calls())
	f.must("--apply", "--yes", "--tag", "Team=b")
	want := []string{"TagOpenIDConnectProvider", "TagPolicy", "TagRole", "TagResource"}
	got := f.writes(n)
	for _, call := range want {
		if !strings.Contains(strings.Join(got, " "), call) {
			t.Errorf("no %s in %v", call, got)
		}
	}
	if len(got) != len(want) {
		t.Errorf("calls %v, want %v", got, want)
	}
	tags := f.workspaceTags()
	if tags[theirs.ARN]["Team"] != "" {
		t.Errorf("another's workspace got %v", tags[theirs.ARN])
	}
	n = len(f.cloud.Calls())
	f.must("--apply", "--yes", "--tag", "Team=b")
	if got := f.writes(n); len(got) > 0 {
		t.Errorf("a second time: %v", got)
	}
}

func TestTagsThatAWSRefusesAreRefusedFirst(t *testing.T) {
	many := func(n int) (args []string) {
		for i := range n {
			args = append(args, "--tag", fmt.Sprintf("t%d=x", i))
		}
		return args
	}
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"one key in two cases": {[]string{"--tag", "Team=a", "--tag", "team=a"}, "the tags Team and team are the same tag for IAM"},
		"too many":             {many(47), "47 tags: AWS accepts 50 on one resource"},
		"ours in capitals":     {[]string{"--tag", "AMPBRIDGE.io/owner=x"}, "are reserved"},
	} {
		f := newFixture(t, policyText)
		if status, out, errs := f.run("", append([]string{"--apply", "--yes"}, c.args...)...); status == cli.OK ||
			!strings.Contains(errs, c.want) || len(f.cloud.Calls()) > 0 {
			t.Errorf("%s: status %d, %d calls: %s%s", name, status, len(f.cloud.Calls()), out, errs)
		}
	}
	f := newFixture(t, policyText)
	f.must(append(many(46), "--apply", "--yes")...)
	n := len(f.cloud.Calls())
	status, out, errs := f.run("", "--apply", "--yes", "--tag", "one=more", "--tag", "two=more")
	if status != cli.Failed || !strings.Contains(out, "has 50 tags") || len(f.writes(n)) > 0 {
		t.Errorf("status %d, %v: %s%s", status, f.writes(n), out, errs)
	}
}
