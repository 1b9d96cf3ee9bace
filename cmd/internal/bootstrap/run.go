package bootstrap

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/ampbridge/ampbridge/cmd/internal/awsiam"
	"github.com/ampbridge/ampbridge/cmd/internal/usage"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/bootstrap"
	"github.com/ampbridge/ampbridge/policy/plan"
)

// run is a look at one account, and what is done about it.
type run struct {
	in      bootstrap.Input
	central bootstrap.Central
	iam     *awsiam.IAM
	amp     workspaces
	stdin   io.Reader
	stdout  io.Writer

	found bootstrap.Found
	plan  plan.Plan
	// made are the new workspaces, by their placeholders.
	made map[string]policy.Workspace
}

func newRun(in bootstrap.Input, central bootstrap.Central, stdin io.Reader, stdout io.Writer) *run {
	// The credentials are the account's own: no sync role is assumed.
	return &run{in: in, central: central, iam: awsiam.New(nil), amp: workspaces{}, stdin: stdin, stdout: stdout, made: map[string]policy.Workspace{}}
}

// show prints what is missing. An error says that it was refused, or why it
// cannot be told.
func (r *run) show(ctx context.Context) error {
	if err := r.look(ctx); err != nil {
		return err
	}
	// Documents are to name the workspaces that were made before.
	r.made = r.central.Made(r.found.Workspaces)
	if err := r.resolve(); err != nil {
		return err
	}
	if _, err := io.WriteString(r.stdout, r.plan.String()); err != nil {
		return err
	}
	if n := len(r.plan.Refusals); n > 0 {
		return fmt.Errorf("%d refused: nothing was changed", n)
	}
	return nil
}

// look reads the account.
func (r *run) look(ctx context.Context) (err error) {
	target := plan.Target{Account: r.in.Account, Provider: r.central.Provider, Region: r.central.Workspaces[0].ARN.Region}
	if r.central.Provider.IsZero() {
		if err := r.iam.Check(ctx, target); err != nil {
			return err
		}
	} else {
		name := r.central.Sync.ARN.RoleName()
		target.Roles = []string{name}
		account := r.iam.Observe(ctx, target)
		if account.Problem != "" {
			return errors.New(account.Problem)
		}
		r.found.Provider = account.Provider
		if role, exists := account.Roles[name]; exists {
			r.found.Role = &role
		}
		if !r.central.Boundary.IsZero() {
			if r.found.Boundary, err = r.iam.ManagedPolicy(ctx, r.central.Boundary); err != nil {
				return err
			}
		}
	}
	r.found.Workspaces, err = r.amp.observe(ctx, r.central)
	return err
}

// resolve makes the plan anew, with the ARNs that are known by now. A workspace
// whose placeholder still stands in the policy stays a new one in the notes.
func (r *run) resolve() error {
	in := r.in
	in.Policy = bootstrap.Resolve(r.in.Policy, r.made)
	in.Aliases = maps.Clone(in.Aliases)
	for _, d := range r.in.Policy.Destinations {
		if _, made := r.made[d.Workspace.String()]; made {
			delete(in.Aliases, d.Name)
		}
	}
	central, err := bootstrap.Desired(in)
	if err != nil {
		return err
	}
	r.plan = bootstrap.Make(central, r.found)
	for placeholder, w := range r.made {
		r.plan.Notes = append(r.plan.Notes, plan.Finding{Account: r.in.Account, About: w.String(), Message: "was made before: write it into the policy instead of " + placeholder})
	}
	slices.SortFunc(r.plan.Notes, func(a, b plan.Finding) int { return strings.Compare(a.About, b.About) })
	return nil
}

// apply makes the changes that were shown.
func (r *run) apply(ctx context.Context, yes bool) error {
	if len(r.plan.Changes) == 0 {
		return r.say("bootstrap: in step: nothing to change")
	}
	if !yes {
		if _, err := fmt.Fprintf(r.stdout, "\nMake these %d changes in account %s? Only yes is taken for it: ", len(r.plan.Changes), r.in.Account); err != nil {
			return err
		}
		answer, err := bufio.NewReader(r.stdin).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if strings.TrimSpace(answer) != "yes" {
			return usage.Errorf("nothing was changed: the answer was not yes; --yes does not ask")
		}
	}
	total, done := len(r.plan.Changes), 0
	for _, c := range r.plan.Changes {
		if c.Call != plan.CreateWorkspace {
			continue
		}
		made, err := r.amp.create(ctx, c)
		if err != nil {
			return r.stopped(c, done, total, err)
		}
		done++
		r.made[c.Resource.String()] = made.ARN
		r.found.Workspaces = append(r.found.Workspaces, made)
	}
	if err := r.resolve(); err != nil {
		return err
	}
	for _, c := range r.plan.Changes {
		if err := r.iam.Apply(ctx, c); err != nil {
			return r.stopped(c, done, total, err)
		}
		done++
	}
	return r.say("bootstrap: in step: %d of %d changes made", done, total)
}

func (r *run) stopped(c plan.Change, done, total int, err error) error {
	if strings.Contains(err.Error(), "Invalid principal") {
		err = fmt.Errorf("%w (sync's role in the account where it begins must be there first: bootstrap that account)", err)
	}
	return fmt.Errorf("%s: %w; %d of %d changes were made: run it again to go on", c.Title(), err, done, total)
}

// tell prints what is needed from here on.
func (r *run) tell(ctx context.Context) error {
	for _, w := range r.central.Workspaces {
		arn := w.ARN
		if made, found := r.made[arn.String()]; found {
			arn = made
		}
		found, err := r.amp.describe(ctx, arn)
		if err != nil {
			return err
		}
		if err := r.say("workspace of destination %s: arn %s, id %s, endpoint %s", w.Destination, arn, arn.ID(), found.Endpoint); err != nil {
			return err
		}
		if arn != w.ARN {
			if err := r.say("  write it into the policy instead of %s", w.ARN); err != nil {
				return err
			}
		}
	}
	if r.central.Provider.IsZero() {
		return nil
	}
	return r.say("sync's role in account %s: %s", r.in.Account, r.central.Sync.ARN)
}

func (r *run) say(format string, args ...any) error {
	_, err := fmt.Fprintf(r.stdout, format+"\n", args...)
	return err
}
