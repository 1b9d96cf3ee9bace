package reconcile

import (
	"context"
	"fmt"
	"time"

	"github.com/ampbridge/ampbridge/cmd/internal/awsiam"
	"github.com/ampbridge/ampbridge/cmd/internal/kube"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/check"
	"github.com/ampbridge/ampbridge/policy/plan"
)

// reconciler makes plans from what it observes, and applies them. [Run] and [Control]
// both use it.
type reconciler struct {
	cluster    kube.Cluster
	iam        *awsiam.IAM
	state      stateStore
	trustQuota int
	// providerQuota is how many OIDC providers an account takes.
	providerQuota int
	// seenWorkspaces are the workspaces that exist: reconciler does not look for them again.
	seenWorkspaces map[policy.ARN]bool
	// seenBounds are the workspaces that their boundary lets roles query, by boundary.
	seenBounds  map[[2]policy.ARN]bool
	allowShrink bool
	now         func() time.Time
	// throttled leaves accounts alone that AWS throttled; nil: none.
	throttled *throttledAccounts
	// limited are the accounts whose IAM refused to make something for its quotas.
	limited map[string]bool
}

// snapshot is what a pass begins with.
type snapshot struct {
	policy   *policy.Policy
	issuer   policy.Issuer
	accounts []plan.ServiceAccount
	// live: the accounts come from the API server, not from a cache.
	live bool
	// orphans: the pass also looks for roles that no destination uses any more.
	orphans bool
	// dryRun: nothing changes, not even the stored state.
	dryRun bool
}

// prepare observes and plans, and stores which subjects are absent.
func (r *reconciler) prepare(ctx context.Context, s snapshot) (plan.Plan, error) {
	in := plan.Input{
		Policy: s.policy, Issuer: s.issuer, ServiceAccounts: s.accounts, Accounts: map[string]plan.Account{},
		TrustQuota: r.trustQuota, Now: r.now(), AllowShrink: r.allowShrink,
	}
	targets := in.Targets()
	// Where there are several accounts, none waits long for another.
	r.iam.Patient = r.iam.Frugal && len(targets) == 1
	for _, target := range targets {
		if !s.orphans && !target.All {
			target.Path = ""
		}
		if r.throttled.skip(target.Account, in.Now) {
			in.Accounts[target.Account] = plan.Account{Problem: throttledProblem}
			continue
		}
		in.Accounts[target.Account] = r.iam.Observe(ctx, target)
		if r.iam.Throttled(target.Account) {
			r.throttle(target.Account)
		}
	}
	var notes []plan.Finding
	note := func(message string, err error) {
		notes = append(notes, plan.Finding{About: r.state.String(), Message: fmt.Sprintf("%s: %v", message, err)})
	}
	var found []plan.Finding
	in.Missing, found = r.missing(ctx, in)
	notes = append(notes, found...)
	in.Unbounded = r.unbounded(ctx, in)
	old, err := r.state.read(ctx)
	if err != nil {
		note("cannot be read, so no subject is pruned", err)
	} else {
		in.Absence = plan.TrackAbsence(old.AbsenceState, in)
		if due := plan.PruneCandidates(in); len(due) > 0 && !s.live {
			// No subject loses trust because a cache is late.
			if in.ServiceAccounts, err = r.cluster.ServiceAccounts(ctx); err != nil {
				return plan.Plan{}, err
			}
			in.Absence = plan.TrackAbsence(old.AbsenceState, in)
		}
		in.Held = r.held(ctx, plan.PruneCandidates(in))
		if !s.dryRun {
			// Before the changes: a run that is killed while it makes them forgets
			// nothing.
			if err := r.state.write(ctx, old, in.Absence); err != nil {
				note("cannot be written, so no subject will be pruned", err)
			}
		}
	}
	p := plan.Compute(in)
	if found, counted := r.addHeadroom(ctx, p, in.Accounts); counted {
		p = plan.Compute(in)
		notes = append(notes, found...)
	}
	p.Notes = append(p.Notes, notes...)
	return p, ctx.Err()
}

// missing returns the workspaces of the policy that do not exist. It looks for each
// until it was there once. A workspace that cannot be looked for causes a note, and
// holds up nothing.
func (r *reconciler) missing(ctx context.Context, in plan.Input) (missing map[policy.ARN]bool, notes []plan.Finding) {
	missing = map[policy.ARN]bool{}
	for _, d := range in.Policy.Destinations {
		workspace := d.Workspace.ARN
		if _, asked := missing[workspace]; asked || r.seenWorkspaces[workspace] || !plan.Managed(in.Policy, d) ||
			in.Accounts[workspace.Account].Problem != "" {
			continue
		}
		exists, err := r.iam.WorkspaceExists(ctx, d.Workspace)
		if awsiam.Throttled(err) {
			r.throttle(workspace.Account)
		}
		if err != nil {
			notes = append(
				notes,
				plan.Finding{
					Account: workspace.Account,
					About:   workspace.String(),
					Message: "cannot find out whether the workspace exists: " + err.Error(),
				},
			)
			continue
		}
		r.seenWorkspaces[workspace], missing[workspace] = exists, !exists
	}
	return missing, notes
}

// unbounded returns the destinations whose roles query, by name, and which the permissions
// boundary does not let query, with the reason: a boundary that an earlier bootstrap made
// allows writes alone. It reads a boundary until it allowed each of them once.
func (r *reconciler) unbounded(ctx context.Context, in plan.Input) map[string]string {
	type answer struct {
		document policy.Document
		err      error
	}
	read, list := map[policy.ARN]answer{}, map[string]string{}
	for _, d := range in.Policy.Destinations {
		boundary := in.Policy.Boundary(d.Workspace.Partition, d.Workspace.Account)
		key := [2]policy.ARN{boundary, d.Workspace.ARN}
		if !plan.Managed(in.Policy, d) || !d.BoundedQuery() || r.seenBounds[key] || in.Accounts[d.Workspace.Account].Problem != "" {
			continue
		}
		found, done := read[boundary]
		if !done {
			found.document, found.err = r.iam.BoundaryDocument(ctx, d.Workspace.Account, boundary)
			if awsiam.Throttled(found.err) {
				r.throttle(d.Workspace.Account)
			}
			read[boundary] = found
		}
		if found.err != nil {
			list[d.Name] = fmt.Sprintf("it cannot be read: %v", found.err)
		} else if action, ok := check.AllowsAll(found.document, policy.AccessQuery.Actions(), d.Workspace.String()); !ok {
			list[d.Name] = fmt.Sprintf("it does not allow %s on %s", action, d.Workspace)
		} else {
			r.seenBounds[key] = true
		}
	}
	return list
}

// throttle leaves the account alone for a while.
func (r *reconciler) throttle(account string) {
	r.throttled.throttled(account, r.iam.Pause(account), r.now())
}

// addHeadroom adds the headroom of the accounts in which the plan creates something.
// A frugal IAM is asked for it only after a quota was used up.
func (r *reconciler) addHeadroom(ctx context.Context, p plan.Plan, accounts map[string]plan.Account) (notes []plan.Finding, counted bool) {
	for _, c := range p.Changes {
		a := accounts[c.Account]
		if !c.Call.Creates() || a.Headroom != nil || r.iam.Frugal && !r.limited[c.Account] {
			continue
		}
		headroom, err := r.iam.Headroom(ctx, c.Account, r.providerQuota)
		if awsiam.Throttled(err) {
			r.throttle(c.Account)
		}
		if err != nil {
			notes = append(
				notes,
				plan.Finding{
					Account: c.Account,
					About:   "account " + c.Account,
					Message: "cannot find out how many roles and providers it still takes: " + err.Error(),
				},
			)
			headroom = plan.Headroom{Roles: len(p.Changes), Providers: 1} // IAM itself refuses what is too much
		}
		a.Headroom = &headroom
		accounts[c.Account], counted = a, true
	}
	return notes, counted
}

// held returns the due subjects that have pods, or may have, with the reason.
func (r *reconciler) held(ctx context.Context, due []policy.Subject) map[policy.Subject]string {
	held := map[policy.Subject]string{}
	for _, subject := range due {
		switch pod, err := r.cluster.PodOf(ctx, subject); {
		case err != nil:
			held[subject] = "cannot find out whether a pod of it runs: " + err.Error()
		case pod != "":
			held[subject] = "a pod of it runs: " + pod
		}
	}
	return held
}

// apply makes the plan's changes in their order. After one that failed it skips those
// that build on it: the later ones of the same role; after a provider, or a call that
// AWS throttled, the rest of the account. It skips the change that must be the last in
// an account if any other there failed.
func (r *reconciler) apply(ctx context.Context, p plan.Plan) (made []plan.Change, failures []Failure) {
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
			err = r.iam.Apply(ctx, c)
		}
		if err == nil {
			made = append(made, c)
			continue
		}
		if awsiam.Limited(err) {
			r.limited[c.Account] = true
		}
		base := c.Resource.String()
		if c.Call.OnProvider() {
			base = c.Account
		}
		if awsiam.Throttled(err) {
			base = c.Account // more calls would only be throttled too
			r.throttle(c.Account)
		}
		if _, found := failed[base]; !found {
			failed[base], inAccount[c.Account] = c.Call, c.Call
		}
		failures = append(failures, Failure{Call: c.Call, Resource: c.Resource, Error: err.Error(), skipped: found})
	}
	return made, failures
}
