package reconcile

import (
	"context"
	"fmt"
	"time"

	"github.com/ampbridge/ampbridge/cmd/internal/awsiam"
	"github.com/ampbridge/ampbridge/cmd/internal/kube"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/plan"
)

// reconciler makes plans from what is there and carries them out: the one way, with
// --once and without.
type reconciler struct {
	cluster    kube.Cluster
	iam        *awsiam.IAM
	state      stateStore
	trustQuota int
	// providerQuota is how many OIDC providers an account takes.
	providerQuota int
	// seenWorkspaces are the workspaces that were seen: they are not looked for again.
	seenWorkspaces map[policy.ARN]bool
	allowShrink    bool
	now            func() time.Time
	// throttled leaves accounts alone that AWS throttled; nil: none.
	throttled *throttledAccounts
}

// snapshot is what a pass begins with.
type snapshot struct {
	policy   *policy.Policy
	issuer   policy.Issuer
	accounts []plan.ServiceAccount
	// live: the accounts come from the API server, not from a cache.
	live bool
	// orphans: roles that no destination uses any more are looked for too.
	orphans bool
	// dryRun: nothing is to be changed, the memory neither.
	dryRun bool
}

// prepare observes and plans, and remembers whom it missed.
func (s *reconciler) prepare(ctx context.Context, l snapshot) (plan.Plan, error) {
	in := plan.Input{
		Policy: l.policy, Issuer: l.issuer, ServiceAccounts: l.accounts, Accounts: map[string]plan.Account{},
		TrustQuota: s.trustQuota, Now: s.now(), AllowShrink: s.allowShrink,
	}
	for _, target := range in.Targets() {
		if !l.orphans && !target.All {
			target.Path = ""
		}
		if s.throttled.skip(target.Account, in.Now) {
			in.Accounts[target.Account] = plan.Account{Problem: throttledProblem}
			continue
		}
		in.Accounts[target.Account] = s.iam.Observe(ctx, target)
		if s.iam.Throttled(target.Account) {
			s.throttled.throttled(target.Account, s.now())
		}
	}
	var notes []plan.Finding
	note := func(message string, err error) {
		notes = append(notes, plan.Finding{About: s.state.String(), Message: fmt.Sprintf("%s: %v", message, err)})
	}
	var found []plan.Finding
	in.Missing, found = s.missing(ctx, in)
	notes = append(notes, found...)
	old, err := s.state.read(ctx)
	if err != nil {
		note("cannot be read, so nobody is pruned", err)
	} else {
		in.Absence = plan.TrackAbsence(old.AbsenceState, in)
		if due := plan.PruneCandidates(in); len(due) > 0 && !l.live {
			// Nobody loses trust because a cache is late.
			if in.ServiceAccounts, err = s.cluster.ServiceAccounts(ctx); err != nil {
				return plan.Plan{}, err
			}
			in.Absence = plan.TrackAbsence(old.AbsenceState, in)
		}
		in.Held = s.held(ctx, plan.PruneCandidates(in))
		if !l.dryRun {
			// Before the changes: a run that is killed while it makes them has
			// forgotten nothing.
			if err := s.state.write(ctx, old, in.Absence); err != nil {
				note("cannot be written, so nobody will be pruned", err)
			}
		}
	}
	p := plan.Compute(in)
	if found, counted := s.count(ctx, p, in.Accounts); counted {
		p = plan.Compute(in)
		notes = append(notes, found...)
	}
	p.Notes = append(p.Notes, notes...)
	return p, ctx.Err()
}

// missing looks for the policy's workspaces, until each was seen once. Where that
// cannot be told, it is said, and holds up nothing.
func (s *reconciler) missing(ctx context.Context, in plan.Input) (missing map[policy.ARN]bool, notes []plan.Finding) {
	missing = map[policy.ARN]bool{}
	for _, d := range in.Policy.Destinations {
		workspace := d.Workspace.ARN
		if _, asked := missing[workspace]; asked || s.seenWorkspaces[workspace] || !plan.Managed(in.Policy, d) || in.Accounts[workspace.Account].Problem != "" {
			continue
		}
		exists, err := s.iam.WorkspaceExists(ctx, d.Workspace)
		if awsiam.Throttled(err) {
			s.throttled.throttled(workspace.Account, s.now())
		}
		if err != nil {
			notes = append(notes, plan.Finding{Account: workspace.Account, About: workspace.String(), Message: "whether the workspace exists cannot be told: " + err.Error()})
			continue
		}
		s.seenWorkspaces[workspace], missing[workspace] = exists, !exists
	}
	return missing, notes
}

// count completes accounts in which the plan would make something by their room.
func (s *reconciler) count(ctx context.Context, p plan.Plan, accounts map[string]plan.Account) (notes []plan.Finding, counted bool) {
	for _, c := range p.Changes {
		a := accounts[c.Account]
		if !c.Call.Creates() || a.Headroom != nil {
			continue
		}
		room, err := s.iam.Headroom(ctx, c.Account, s.providerQuota)
		if awsiam.Throttled(err) {
			s.throttled.throttled(c.Account, s.now())
		}
		if err != nil {
			notes = append(notes, plan.Finding{Account: c.Account, About: "account " + c.Account, Message: "how many roles and providers it still takes cannot be told: " + err.Error()})
			room = plan.Headroom{Roles: len(p.Changes), Providers: 1} // IAM itself refuses what is too much
		}
		a.Headroom = &room
		accounts[c.Account], counted = a, true
	}
	return notes, counted
}

// held says who of the due subjects has pods, or may have.
func (s *reconciler) held(ctx context.Context, due []policy.Subject) map[policy.Subject]string {
	held := map[policy.Subject]string{}
	for _, subject := range due {
		switch pod, err := s.cluster.PodOf(ctx, subject); {
		case err != nil:
			held[subject] = "whether a pod of it runs cannot be seen: " + err.Error()
		case pod != "":
			held[subject] = "a pod of it runs: " + pod
		}
	}
	return held
}

// applyAndReport makes the plan's changes in their order. One that fails takes those
// along that build on it: the later ones of the same role, after a provider the
// rest of its account, as after a call that AWS throttled; and what is to be the
// last there is made after all, or not.
func (s *reconciler) apply(ctx context.Context, p plan.Plan) (made []plan.Change, failures []Failure) {
	failures = []Failure{}
	failed := map[string]plan.Call{}
	inAccount := map[string]plan.Call{}
	for _, c := range p.Changes {
		err := ctx.Err()
		call, found := failed[c.Account]
		if !found {
			call, found = failed[c.Resource.String()]
		}
		if !found && c.Last {
			call, found = inAccount[c.Account]
		}
		if err == nil && found {
			err = fmt.Errorf("%s: not tried, because %s failed", c.Call, call)
		}
		if err == nil {
			err = s.iam.Apply(ctx, c)
		}
		if err == nil {
			made = append(made, c)
			continue
		}
		base := c.Resource.String()
		if c.Call.OnProvider() {
			base = c.Account
		}
		if awsiam.Throttled(err) {
			base = c.Account // more calls would only be throttled too
			s.throttled.throttled(c.Account, s.now())
		}
		if _, found := failed[base]; !found {
			failed[base], inAccount[c.Account] = c.Call, c.Call
		}
		failures = append(failures, Failure{Call: c.Call, Resource: c.Resource, Error: err.Error(), skipped: found})
	}
	return made, failures
}
