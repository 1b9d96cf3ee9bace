package sync

import (
	"context"
	"fmt"
	"time"

	"github.com/ampbridge/ampbridge/cmd/internal/awsiam"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/plan"
)

// passes makes plans from what is there and carries them out: the one way, with
// --once and without.
type passes struct {
	cluster     cluster
	iam         *awsiam.IAM
	memory      memory
	trustQuota  int
	allowShrink bool
	now         func() time.Time
}

// look is what a pass begins with.
type look struct {
	policy   *policy.Policy
	issuer   policy.Issuer
	accounts []plan.ServiceAccount
	// live: the accounts come from the API server, not from a cache.
	live bool
	// leftovers: roles that no destination uses any more are looked for too.
	leftovers bool
	// dryRun: nothing is to be changed, the memory neither.
	dryRun bool
}

// prepare observes and plans, and remembers whom it missed.
func (s *passes) prepare(ctx context.Context, l look) (plan.Plan, error) {
	observed := map[string]plan.Account{}
	for _, target := range plan.Targets(l.policy, l.issuer) {
		if !l.leftovers {
			target.Path = ""
		}
		observed[target.Account] = s.iam.Observe(ctx, target)
	}
	in := plan.Input{
		Policy: l.policy, Issuer: l.issuer, ServiceAccounts: l.accounts, Accounts: observed,
		TrustQuota: s.trustQuota, Now: s.now(), AllowShrink: s.allowShrink,
	}
	var notes []plan.Finding
	note := func(message string, err error) {
		notes = append(notes, plan.Finding{About: s.memory.String(), Message: fmt.Sprintf("%s: %v", message, err)})
	}
	old, err := s.memory.read(ctx)
	if err != nil {
		note("cannot be read, so nobody is pruned", err)
	} else {
		in.Memory = plan.Remember(old.Memory, in)
		if due := plan.Due(in); len(due) > 0 && !l.live {
			// Nobody loses trust because a cache is late.
			if in.ServiceAccounts, err = s.cluster.serviceAccounts(ctx); err != nil {
				return plan.Plan{}, err
			}
			in.Memory = plan.Remember(old.Memory, in)
		}
		in.Held = s.held(ctx, plan.Due(in))
		if !l.dryRun {
			// Before the changes: a run that is killed while it makes them has
			// forgotten nothing.
			if err := s.memory.write(ctx, old, in.Memory); err != nil {
				note("cannot be written, so nobody will be pruned", err)
			}
		}
	}
	p := plan.Make(in)
	p.Notes = append(p.Notes, notes...)
	return p, ctx.Err()
}

// held says who of the due subjects has pods, or may have.
func (s *passes) held(ctx context.Context, due []policy.Subject) map[policy.Subject]string {
	held := map[policy.Subject]string{}
	for _, subject := range due {
		switch pod, err := s.cluster.podOf(ctx, subject); {
		case err != nil:
			held[subject] = "whether a pod of it runs cannot be seen: " + err.Error()
		case pod != "":
			held[subject] = "a pod of it runs: " + pod
		}
	}
	return held
}

// carryOut makes the plan's changes in their order. One that fails takes those
// along that build on it: the later ones of the same role, after a provider the
// rest of its account; and a provider is deleted after all its roles, or not.
func (s *passes) carryOut(ctx context.Context, p plan.Plan) (made []plan.Change, failures []Failure) {
	failures = []Failure{}
	failed := map[string]plan.Call{}
	inAccount := map[string]plan.Call{}
	for _, c := range p.Changes {
		err := ctx.Err()
		call, found := failed[c.Account]
		if !found {
			call, found = failed[c.Resource.String()]
		}
		if !found && c.Call == plan.DeleteProvider {
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
		if _, found := failed[base]; !found {
			failed[base], inAccount[c.Account] = c.Call, c.Call
		}
		failures = append(failures, Failure{Call: c.Call, Resource: c.Resource, Error: err.Error(), skipped: found})
	}
	return made, failures
}
