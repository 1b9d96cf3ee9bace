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
	"github.com/ampbridge/ampbridge/cmd/internal/output"
	"github.com/ampbridge/ampbridge/cmd/internal/usage"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/bootstrap"
	"github.com/ampbridge/ampbridge/policy/plan"
)

// accountRun observes one account and applies what is missing.
type accountRun struct {
	in      bootstrap.Input
	central bootstrap.Central
	iam     *awsiam.IAM
	amp     workspaces
	stdin   io.Reader
	stdout  io.Writer

	found bootstrap.Found
	plan  plan.Plan
	// created maps placeholders to the new workspaces.
	created map[string]policy.Workspace
}

func newAccountRun(in bootstrap.Input, central bootstrap.Central, stdin io.Reader, stdout io.Writer) *accountRun {
	// The credentials must belong to the account itself: no sync role is assumed.
	return &accountRun{
		in:      in,
		central: central,
		iam:     awsiam.New(nil),
		amp:     workspaces{},
		stdin:   stdin,
		stdout:  stdout,
		created: map[string]policy.Workspace{},
	}
}

// show prints what is missing, in a format. It returns an error if the plan has refusals or the
// account cannot be read.
func (a *accountRun) show(ctx context.Context, format string) error {
	if err := a.observe(ctx); err != nil {
		return err
	}
	// Use the ARNs of workspaces that an earlier run created.
	for placeholder, f := range a.central.Made(a.found.Workspaces) {
		a.created[placeholder] = f.ARN
	}
	if err := a.resolve(); err != nil {
		return err
	}
	if format == Text {
		if _, err := io.WriteString(a.stdout, a.plan.String()); err != nil {
			return err
		}
	} else if err := output.Write(a.stdout, format, a.plan); err != nil {
		return err
	}
	if n := len(a.plan.Refusals); n > 0 {
		return fmt.Errorf("%d refused: nothing was changed", n)
	}
	return nil
}

// observe reads the account.
func (a *accountRun) observe(ctx context.Context) (err error) {
	target := plan.Target{Account: a.in.Account, Provider: a.central.Provider, Region: a.central.Workspaces[0].ARN.Region}
	if a.central.Provider.IsZero() {
		if err := a.iam.Check(ctx, target); err != nil {
			return err
		}
	} else {
		name := a.central.Sync.ARN.RoleName()
		target.Roles = []string{name}
		account := a.iam.Observe(ctx, target)
		if account.Problem != "" {
			return errors.New(account.Problem)
		}
		a.found.Provider = account.Provider
		if role, exists := account.Roles[name]; exists {
			a.found.Role = &role
		}
		if !a.central.Boundary.IsZero() {
			if a.found.Boundary, err = a.iam.ManagedPolicy(ctx, a.central.Boundary); err != nil {
				return err
			}
		}
	}
	a.found.Workspaces, err = a.amp.observe(ctx, a.central)
	return err
}

// resolve computes the plan again with the ARNs that are known now. A note names
// each workspace that still has its placeholder in the policy.
func (a *accountRun) resolve() error {
	in := a.in
	in.Policy = bootstrap.Resolve(a.in.Policy, a.created)
	in.Aliases = maps.Clone(in.Aliases)
	for _, d := range a.in.Policy.Destinations {
		if _, known := a.created[d.Workspace.String()]; known {
			delete(in.Aliases, d.Name)
		}
	}
	central, err := bootstrap.Desired(in)
	if err != nil {
		return err
	}
	a.plan = bootstrap.Compute(central, a.found)
	made := a.central.Made(a.found.Workspaces)
	for _, w := range a.central.Workspaces {
		if f, found := made[w.ARN.String()]; found {
			a.plan.Notes = append(a.plan.Notes, a.central.MadeBefore(w, f))
		}
	}
	slices.SortFunc(a.plan.Notes, func(a, b plan.Finding) int { return strings.Compare(a.About, b.About) })
	return nil
}

// apply makes the changes that were shown.
func (a *accountRun) apply(ctx context.Context, yes bool) error {
	if len(a.plan.Changes) == 0 {
		return a.printf("bootstrap: in sync: nothing to change")
	}
	if !yes {
		if _, err := fmt.Fprintf(
			a.stdout,
			"\nMake these %d changes in account %s? Only yes confirms it: ",
			len(a.plan.Changes),
			a.in.Account,
		); err != nil {
			return err
		}
		answer, err := bufio.NewReader(a.stdin).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if strings.TrimSpace(answer) != "yes" {
			return usage.Errorf("nothing was changed: the answer was not yes; --yes does not ask")
		}
	}
	total, done := len(a.plan.Changes), 0
	for _, c := range a.plan.Changes {
		if c.Call != plan.CreateWorkspace {
			continue
		}
		made, err := a.amp.create(ctx, c)
		if err != nil {
			return a.incomplete(c, done, total, err)
		}
		done++
		a.created[c.Resource.String()] = made.ARN
		a.found.Workspaces = append(a.found.Workspaces, made)
	}
	if err := a.resolve(); err != nil {
		return err
	}
	for _, c := range a.plan.Changes {
		apply := a.iam.Apply
		if c.Call == plan.TagWorkspace {
			apply = a.amp.tag
		}
		if err := apply(ctx, c); err != nil {
			return a.incomplete(c, done, total, err)
		}
		done++
	}
	return a.printf("bootstrap: in sync: %d of %d changes made", done, total)
}

// incomplete returns an error that reports how many changes were made before the interruption.
func (a *accountRun) incomplete(c plan.Change, done, total int, err error) error {
	if strings.Contains(err.Error(), "Invalid principal") {
		err = fmt.Errorf("%w (sync's role in the account where it begins must exist first: bootstrap that account)", err)
	}
	return fmt.Errorf("%s: %w; %d of %d changes were made: run it again to continue", c.Title(), err, done, total)
}

// printResult prints the ARNs that the next steps need.
func (a *accountRun) printResult(ctx context.Context) error {
	for _, w := range a.central.Workspaces {
		arn := w.ARN
		if made, found := a.created[arn.String()]; found {
			arn = made
		}
		found, err := a.amp.describe(ctx, arn)
		if err != nil {
			return err
		}
		if err := a.printf(
			"workspace of destination %s: arn %s, id %s, endpoint %s",
			w.Destination,
			arn,
			arn.ID(),
			found.Endpoint,
		); err != nil {
			return err
		}
		if arn != w.ARN {
			if err := a.printf("  write it into the policy instead of %s", w.ARN); err != nil {
				return err
			}
		}
	}
	if a.central.Provider.IsZero() {
		return nil
	}
	return a.printf("sync's role in account %s: %s", a.in.Account, a.central.Sync.ARN)
}

// printf prints one line.
func (a *accountRun) printf(format string, args ...any) error {
	_, err := fmt.Fprintf(a.stdout, format+"\n", args...)
	return err
}
