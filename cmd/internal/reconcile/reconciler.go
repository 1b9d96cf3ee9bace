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

// reconciler computes plans from what it observes, and applies them. Both [Run] and [Control]
// use it.
type reconciler struct {
	cluster    kube.Cluster
	iam        *awsiam.IAM
	state      stateStore
	trustQuota int
	// providerQuota is the number of OIDC providers that an account may have.
	providerQuota int
	// seenWorkspaces are workspaces that exist. They are not read again.
	seenWorkspaces map[policy.ARN]bool
	// seenBounds has the workspaces that a boundary allows roles to query, by boundary.
	seenBounds  map[[2]policy.ARN]bool
	allowShrink bool
	now         func() time.Time
	// throttled has the accounts that must not be called for a while; nil if there are none.
	throttled *throttledAccounts
	// limited has the accounts in which IAM refused a creation because of a quota.
	limited map[string]bool
}

// snapshot is the input of a pass.
type snapshot struct {
	policy   *policy.Policy
	issuer   policy.Issuer
	accounts []plan.ServiceAccount
	// live is true if the service accounts come from the API server and not from a cache.
	live bool
	// orphans is true if the pass also looks for roles that no destination uses any more.
	orphans bool
	// dryRun is true if nothing may change, not even the stored state.
	dryRun bool
}

// prepare observes and plans, and stores which subjects are absent.
func (r *reconciler) prepare(ctx context.Context, s snapshot) (plan.Plan, error) {
	in := plan.Input{
		Policy: s.policy, Issuer: s.issuer, ServiceAccounts: s.accounts, Accounts: map[string]plan.Account{},
		TrustQuota: r.trustQuota, Now: r.now(), AllowShrink: r.allowShrink,
	}
	targets := in.Targets()
	// With several accounts, one must not wait long for another.
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
			// The cache may be late, and no subject may lose trust because of that.
			if in.ServiceAccounts, err = r.cluster.ServiceAccounts(ctx); err != nil {
				return plan.Plan{}, err
			}
			in.Absence = plan.TrackAbsence(old.AbsenceState, in)
		}
		in.Held = r.held(ctx, plan.PruneCandidates(in))
		if !s.dryRun {
			// Write before the changes, so that a run that is killed during the changes loses no state.
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

// missing returns the workspaces of the policy that do not exist. It reads each one
// until it has existed once. A workspace that cannot be read causes a note and does not stop
// the pass.
func (r *reconciler) missing(ctx context.Context, in plan.Input) (missing map[policy.ARN]bool, notes []plan.Finding) {
	missing = map[policy.ARN]bool{}
	for _, d := range in.Policy.Destinations {
		workspace := d.Workspace.ARN
		if _, asked := missing[workspace]; asked || r.seenWorkspaces[workspace] || !plan.Managed(in.Policy, d) ||
			in.Accounts[workspace.Account].Problem != "" {
			continue
		}
		exists, err := r.iam.WorkspaceExists(ctx, d.Workspace)
		if err != nil {
			notes = append(notes, r.unknown(workspace.Account, workspace.String(), "whether the workspace exists", err))
			continue
		}
		r.seenWorkspaces[workspace], missing[workspace] = exists, !exists
	}
	return missing, notes
}

// unbounded returns the destinations with query access that the permissions boundary does not
// allow, by name, with the reason. The boundary of an earlier bootstrap allows only writes.
// It reads a boundary until it has allowed each of them once.
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

// throttle starts a pause for the account.
func (r *reconciler) throttle(account string) {
	r.throttled.throttled(account, r.iam.Pause(account), r.now())
}

// addHeadroom adds the headroom of the accounts in which the plan creates something.
// A frugal IAM reads it only after a quota was exceeded.
func (r *reconciler) addHeadroom(ctx context.Context, p plan.Plan, accounts map[string]plan.Account) (notes []plan.Finding, counted bool) {
	for _, c := range p.Changes {
		a := accounts[c.Account]
		if !c.Call.Creates() || a.Headroom != nil || r.iam.Frugal && !r.limited[c.Account] {
			continue
		}
		headroom, err := r.iam.Headroom(ctx, c.Account, r.providerQuota)
		if err != nil {
			notes = append(notes, r.unknown(c.Account, "account "+c.Account, "how many roles and providers it can still have", err))
			headroom = plan.Headroom{Roles: len(p.Changes), Providers: 1} // IAM itself refuses what exceeds the quota
		}
		a.Headroom = &headroom
		accounts[c.Account], counted = a, true
	}
	return notes, counted
}

// unknown returns a note that something could not be found out. After a throttled call it slows
// down the calls of the account.
func (r *reconciler) unknown(account, about, what string, err error) plan.Finding {
	if awsiam.Throttled(err) {
		r.throttle(account)
	}
	return plan.Finding{Account: account, About: about, Message: "cannot find out " + what + ": " + err.Error()}
}

// held returns the candidates that have running pods, or may have, with the reason.
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

// apply makes the plan's changes in order. After a failed change it skips those
// that depend on it: later changes of the same role, or, if the provider failed or AWS throttled
// the call, all later changes of the account. It skips a change that must be the last of
// an account if any other change there failed.
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
			base = c.Account // further calls would be throttled too
			r.throttle(c.Account)
		}
		if _, found := failed[base]; !found {
			failed[base], inAccount[c.Account] = c.Call, c.Call
		}
		failures = append(failures, Failure{Call: c.Call, Resource: c.Resource, Error: err.Error(), skipped: found})
	}
	return made, failures
}
