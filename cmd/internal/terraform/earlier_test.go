package terraform

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/bootstrap"
	"github.com/ampbridge/ampbridge/test/policytest"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/tfconfig"
)

// centralOf is the central part of the account for a policy with these destinations.
func centralOf(t *testing.T, destinations string, change ...func(*bootstrap.Input)) bootstrap.Central {
	t.Helper()
	return desiredIn(t, `
apiVersion: ampbridge.io/v1alpha1
kind: Policy
cluster: {name: dev}
destinations:
`+destinations+`
trust:
  permissionsBoundary: "arn:aws:iam::111122223333:policy/ampbridge-boundary"
  accounts: [{id: "444455556666", syncRole: "arn:aws:iam::444455556666:role/sync-of-dev"}]
`, account, change...)
}

// desiredIn returns the central part of an account for a policy.
func desiredIn(t *testing.T, text, account string, change ...func(*bootstrap.Input)) bootstrap.Central {
	t.Helper()
	in := bootstrap.Input{
		Policy: policytest.ParseDraft(t, text), Account: account,
		Issuer: "https://oidc.eks.eu-west-1.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF",
		Sync:   policy.Subject{Namespace: "ampbridge-system", ServiceAccount: "ampbridge-sync"},
	}
	for _, c := range change {
		c(&in)
	}
	c, err := bootstrap.Desired(in)
	testkit.Must(t, err)
	return c
}

// generate writes the next configuration after an earlier one.
func generate(t *testing.T, c bootstrap.Central, earlier []byte) []byte {
	t.Helper()
	e, err := ReadEarlier("bootstrap.tf", earlier)
	if err != nil {
		t.Fatalf("%v\n%s", err, earlier)
	}
	text, err := Central(c, false, e, nil)
	testkit.Must(t, err)
	return text
}

var declared = regexp.MustCompile(`(?m)^resource "aws_prometheus_workspace" "([^"]+)"`)

// load reads a configuration whose workspaces have an ARN each.
func load(t *testing.T, text []byte) tfconfig.Config {
	t.Helper()
	known := map[string]map[string]string{providerAddress: {"arn": "arn:aws:iam::111122223333:oidc-provider/x"}}
	for _, found := range declared.FindAllSubmatch(text, -1) {
		known[workspaceType+"."+string(found[1])] = map[string]string{"arn": "made-" + string(found[1])}
	}
	config, err := tfconfig.Parse(text, known)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return config
}

const (
	fresh1  = `- {name: central, workspace: "arn:aws:aps:eu-west-1:111122223333:workspace/ws-new"}`
	written = `- {name: central, workspace: "arn:aws:aps:eu-west-1:111122223333:workspace/ws-0001"}`
	renamed = `- {name: main, workspace: "arn:aws:aps:eu-west-1:111122223333:workspace/ws-0001"}`
	moved   = `- {name: central, workspace: "arn:aws:aps:us-east-1:111122223333:workspace/ws-new"}`
	beside  = `- {name: beside, workspace: "arn:aws:aps:eu-west-1:111122223333:workspace/ws-0009"}`
	abroad  = beside + "\n" + `- {name: central, workspace: "arn:aws:aps:eu-west-1:444455556666:workspace/ws-0001"}`
)

// What was reported: a workspace is made, its ARN is written into the policy, and
// the configuration is written again. The others have the same end.
func TestWorkspaceStays(t *testing.T) {
	const stays, goes = "resource", "removed"
	for _, c := range []struct {
		name  string
		steps []string
		want  map[string]string // of each workspace's name, in the end
	}{
		{"the ARN is written into the policy", []string{fresh1, written}, map[string]string{"central": stays}},
		{"and everything is written again", []string{fresh1, written, written, written + "\n" + beside}, map[string]string{"central": stays}},
		{"an ARN that Terraform never had", []string{written}, map[string]string{}},
		{"the destination goes", []string{fresh1, written, beside}, map[string]string{"central": goes}},
		{"and comes back by its ARN", []string{fresh1, beside, written}, map[string]string{"central": goes}},
		{"and comes back as a new one", []string{fresh1, beside, fresh1}, map[string]string{"central": goes, "central-2": stays}},
		{"the destination is renamed", []string{fresh1, written, renamed}, map[string]string{"central": goes}},
		{"to another region", []string{fresh1, moved}, map[string]string{"central": goes, "central-2": stays}},
		{"to another region and back", []string{fresh1, moved, fresh1},
			map[string]string{"central": goes, "central-2": goes, "central-3": stays}},
		{"to another account", []string{fresh1, written, abroad}, map[string]string{"central": goes}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var text []byte
			for _, step := range c.steps {
				text = generate(t, centralOf(t, step), text)
			}
			got := map[string]string{}
			config := load(t, text)
			for address, r := range config.Resources {
				if name, found := strings.CutPrefix(address, workspaceType+"."); found {
					got[name] = stays
					if !slices.Contains(r.Blocks, "lifecycle") {
						t.Errorf("%s is not guarded", address)
					}
				}
			}
			for address, destroys := range config.Removed {
				got[strings.TrimPrefix(address, workspaceType+".")] = goes
				if destroys {
					t.Errorf("%s is destroyed", address)
				}
			}
			if fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("got %v, want %v\n%s", got, c.want, text)
			}
			if again := generate(t, centralOf(t, c.steps[len(c.steps)-1]), text); !bytes.Equal(text, again) {
				t.Errorf("written again, it changes:\n%s\nto\n%s", text, again)
			}
		})
	}
}

// While a workspace is new its alias and tags follow; what people added stays,
// since another argument may replace the workspace.
func TestKeptResource(t *testing.T) {
	text := generate(t, centralOf(t, fresh1), nil)
	edited := strings.Replace(
		string(text),
		`alias  = "central"`,
		"alias  = \"central\"\n  kms_key_arn = \"arn:aws:kms:eu-west-1:111122223333:key/1\" # ours",
		1,
	)
	named := func(in *bootstrap.Input) {
		in.Aliases, in.Tags = map[string]string{"central": "metrics"}, map[string]string{"team": "a"}
	}
	text = generate(t, centralOf(t, fresh1, named), []byte(edited))
	r := load(t, text).Resources[workspaceType+".central"]
	if r.String("alias") != "metrics" || r.Map("tags")["team"] != "a" || r.String("kms_key_arn") == "" ||
		r.String("region") != "eu-west-1" {
		t.Errorf("while it is new:\n%s", text)
	}
	text = generate(t, centralOf(t, written), text)
	if r := load(t, text).Resources[workspaceType+".central"]; r.String("alias") != "metrics" || r.Map("tags")["team"] != "a" ||
		r.String("kms_key_arn") == "" {
		t.Errorf("once its ARN is in the policy:\n%s", text)
	}
	// A file of a version that wrote no guard gets one.
	older := regexp.MustCompile(`(?s)\n  lifecycle \{\n    prevent_destroy = true\n  \}\n`).ReplaceAllString(string(text), "")
	if strings.Contains(older, "prevent_destroy") {
		t.Fatal(older)
	}
	if again := generate(t, centralOf(t, written), []byte(older)); !strings.Contains(string(again), "prevent_destroy = true") {
		t.Errorf("no guard:\n%s", again)
	}
}

func TestEarlierIsRefused(t *testing.T) {
	good := string(generate(t, centralOf(t, fresh1), nil))
	for name, c := range map[string]struct{ text, want string }{
		"somebody's file":    {"resource \"aws_prometheus_workspace\" \"central\" {}\n", "was not written by ampbridge"},
		"roles":              {string(Roles(desired(t, base, some...), account, false, false)), "was not written by ampbridge bootstrap"},
		"cut off":            {good[:len(good)/2], "cannot read the earlier configuration"},
		"merge conflict":     {good + "<<<<<<< HEAD\n", "bootstrap.tf:"},
		"not a name":         {strings.Replace(good, `"central" {`, `"cen tral" {`, 1), "is not the name of a resource"},
		"of another account": {strings.ReplaceAll(good, account, "444455556666"), "is of account 444455556666"},
	} {
		e, err := ReadEarlier("bootstrap.tf", []byte(c.text))
		if err == nil {
			_, err = Central(centralOf(t, fresh1), false, e, nil)
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// model is a policy that changes at random, and the Terraform state beside it.
type model struct {
	*testing.T
	random       *rand.Rand
	destinations []destination
	made         int
	// ever are the regions of all workspaces that a configuration ever had, by
	// address; state are those that an apply made and none destroyed or forgot.
	ever, state map[string]string
}

type destination struct{ name, region, account, id string }

func (m *model) pick(values ...string) string { return values[m.random.IntN(len(values))] }

func (m *model) id() string {
	m.made++
	return fmt.Sprintf(m.pick("ws-new-%d", "ws-0a%04d"), m.made)
}

func (m *model) name() string {
	return m.pick("central", "main", "2nd", "a--b", "central-2", "eu", "x-1")
}

// change is one change of the policy.
func (m *model) change() {
	if len(m.destinations) == 0 || (len(m.destinations) < 6 && m.random.IntN(4) == 0) {
		m.destinations = append(
			m.destinations,
			destination{m.name(), m.pick("eu-west-1", "us-east-1"), m.pick(account, account, "444455556666"), m.id()},
		)
	} else {
		d := &m.destinations[m.random.IntN(len(m.destinations))]
		switch m.random.IntN(7) {
		case 0:
			if len(m.destinations) == 1 {
				break
			}
			*d = m.destinations[len(m.destinations)-1]
			m.destinations = m.destinations[:len(m.destinations)-1]
		case 1:
			d.name = m.name()
		case 2:
			d.region = m.pick("eu-west-1", "us-east-1", "eu-central-1")
		case 3:
			d.account = m.pick(account, "444455556666")
		case 4:
			d.id = m.id()
		case 5, 6: // the ARN is written in
			m.made++
			d.id = fmt.Sprintf("ws-0b%04d", m.made)
		}
	}
	names := map[string]bool{}
	m.destinations = slices.DeleteFunc(m.destinations, func(d destination) bool {
		twice := names[d.name]
		names[d.name] = true
		return twice
	})
}

func (m *model) text() string {
	var lines []string
	for _, d := range m.destinations {
		lines = append(lines, fmt.Sprintf("- {name: %q, workspace: %q}", d.name, "arn:aws:aps:"+d.region+":"+d.account+":workspace/"+d.id))
	}
	return strings.Join(lines, "\n")
}

// check requires that nothing ever leaves, and that an apply destroys nothing.
func (m *model) check(config tfconfig.Config, apply bool) {
	m.Helper()
	for address, r := range config.Resources {
		if !strings.HasPrefix(address, workspaceType+".") {
			continue
		}
		if region, known := m.ever[address]; known && region != r.String("region") {
			m.Errorf("%s moves from %s to %s, which replaces it", address, region, r.String("region"))
		}
		m.ever[address] = r.String("region")
		if apply {
			m.state[address] = r.String("region")
		}
	}
	for address := range m.ever {
		_, stays := config.Resources[address]
		destroys, removed := config.Removed[address]
		if !stays && (!removed || destroys) {
			m.Errorf("%s has left: removed block %v, destroys %v, in the state %q", address, removed, destroys, m.state[address])
		}
		if removed && apply {
			delete(m.state, address)
		}
	}
	for address := range m.state {
		if _, stays := config.Resources[address]; apply && !stays {
			m.Errorf("an apply destroys %s", address)
		}
	}
}

func TestNoSequenceDropsAWorkspace(t *testing.T) {
	for seed := range uint64(4) {
		m := &model{T: t, random: rand.New(rand.NewPCG(seed, 10)), ever: map[string]string{}, state: map[string]string{}}
		var text []byte
		for step := range 200 {
			m.change()
			text = generate(t, centralOf(t, m.text()), text)
			m.check(load(t, text), m.random.IntN(3) == 0)
			if t.Failed() {
				t.Fatalf("seed %d, step %d, policy\n%s\nconfiguration\n%s", seed, step, m.text(), text)
			}
		}
		if len(m.ever) < 5 {
			t.Errorf("seed %d: only %d workspaces in 200 changes", seed, len(m.ever))
		}
		t.Logf("seed %d: %d workspaces, %d bytes", seed, len(m.ever), len(text))
	}
}

// OpenTofu itself loads what has resources, removed blocks and references.
func TestTofuLoadsWhatIsRemoved(t *testing.T) {
	text := generate(t, centralOf(t, fresh1), nil)
	for _, step := range []string{written, renamed, moved, moved + "\n" + beside} {
		text = generate(t, centralOf(t, step), text)
	}
	if removed := load(t, text).Removed; len(removed) != 1 {
		t.Fatalf("removed: %v", removed)
	}
	tfconfig.Check(t, text)
}
