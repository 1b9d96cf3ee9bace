package main

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/smithy-go"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/plan"
)

// The simulation: many clusters sync into a few accounts whose IAM throttles, on
// a clock that costs nothing. The plan is the product's, and so are its calls
// and their order; the pauses between attempts are the SDK's retryer's. IAM is a
// model: documents are stored as they are sent.

const (
	simulatedClusters     = 1000
	simulatedDestinations = 3
	// perAccount fills AWS's default quota of OIDC providers; three roles each stay
	// below that of roles.
	perAccount = 100
	// IAM answers in some tens of milliseconds.
	callLatency = 40 * time.Millisecond
	// What sync asks of the SDK: cmd/internal/awsiam.
	simulatedAttempts = 6
	simulatedBackoff  = 5 * time.Second
	interval          = 10 * time.Minute // of the policy's trust.interval
	// How soon its controller tries again: cmd/internal/reconcile.
	firstRetry = 5 * time.Second
)

// measureSimulation reports, for IAM's of different generosity (AWS publishes no
// rates), how long the slowest cluster takes until it is in sync. At best is the
// time in which IAM would answer the least calls there could be.
func measureSimulation(ctx context.Context, r *report) error {
	r.line("simulation: %d clusters x %d destinations in %d accounts, IAM with a token bucket in each, %d ms a call",
		simulatedClusters, simulatedDestinations, simulatedClusters/perAccount, callLatency.Milliseconds())
	r.line(
		"  %-12s %-14s %-24s %9s %8s %8s %8s %6s %9s %5s",
		"calls/s",
		"start",
		"what",
		"in sync",
		"at best",
		"calls",
		"minimum",
		"ratio",
		"throttled",
		"lost",
	)
	for _, rate := range []float64{5, 20, 100} {
		for _, spread := range []time.Duration{0, interval} {
			s := newSimulation(rate)
			for _, phase := range []struct {
				name     string
				accounts int
			}{{"from nothing", 1}, {"a new service account", 2}, {"nothing new", 2}} {
				if err := ctx.Err(); err != nil {
					return err
				}
				s.accounts = phase.accounts
				f := s.phase(spread)
				start, atBest := "all at once", time.Duration(
					max(0, float64(f.minimum)/float64(len(s.iam))-2*rate)/rate*float64(time.Second),
				).Round(
					time.Second,
				).String()
				if spread > 0 {
					start, atBest = "over "+spread.String(), ""
				}
				r.line("  %-12.0f %-14s %-24s %9s %8s %8d %8d %6.2f %9d %5d", rate, start, phase.name, f.took.Round(time.Second), atBest,
					f.calls, f.minimum, float64(f.calls)/float64(f.minimum), f.throttled, f.lost)
				if f.lost > 0 {
					return fmt.Errorf("%d updates were lost", f.lost)
				}
			}
		}
	}
	return nil
}

// simulation runs one goroutine at a time: the one whose time is next.
type simulation struct {
	now      time.Time
	queue    sleepers
	parked   chan struct{}
	random   *rand.Rand
	iam      map[string]*simulatedIAM
	clusters []*simulatedCluster
	accounts int // service accounts in each cluster

	throttled, calls int
}

type figures struct {
	took                            time.Duration
	calls, minimum, throttled, lost int
}

func newSimulation(rate float64) *simulation {
	s := &simulation{
		now:      time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		parked:   make(chan struct{}),
		random:   rand.New(rand.NewSource(1)),
		iam:      map[string]*simulatedIAM{},
		accounts: 1,
	}
	for n := range simulatedClusters {
		id := fmt.Sprintf("%012d", 100+n/perAccount)
		if s.iam[id] == nil {
			s.iam[id] = &simulatedIAM{
				rate:      rate,
				burst:     2 * rate,
				tokens:    2 * rate,
				filled:    s.now,
				roles:     map[string]plan.Role{},
				providers: map[policy.ARN]plan.Provider{},
			}
		}
		s.clusters = append(s.clusters, newSimulatedCluster(s, n, id))
	}
	return s
}

// phase lets every cluster sync, and again, later each time, where a run failed,
// until all are in sync. They start at random moments of the spread.
func (s *simulation) phase(spread time.Duration) figures {
	s.calls, s.throttled = 0, 0
	f := figures{}
	for _, c := range s.clusters {
		f.minimum += c.leastCalls()
	}
	for _, c := range s.clusters {
		s.start(func() {
			if spread > 0 {
				s.sleep(time.Duration(s.random.Int63n(int64(spread))))
			}
			begun := s.now
			for retry := firstRetry; !c.run(); retry = min(2*retry, interval) {
				s.sleep(retry/2 + time.Duration(s.random.Int63n(int64(retry/2))))
			}
			f.took = max(f.took, s.now.Sub(begun))
		})
	}
	s.drain()
	f.calls, f.throttled = s.calls, s.throttled
	for _, c := range s.clusters {
		f.lost += c.lacking()
	}
	return f
}

func (s *simulation) start(work func()) {
	wake := make(chan struct{})
	heap.Push(&s.queue, sleeper{s.now, s.random.Int63(), wake})
	go func() {
		<-wake
		work()
		s.parked <- struct{}{}
	}()
}

// sleep parks the running goroutine; the others run meanwhile.
func (s *simulation) sleep(d time.Duration) {
	wake := make(chan struct{})
	heap.Push(&s.queue, sleeper{s.now.Add(d), s.random.Int63(), wake})
	s.parked <- struct{}{}
	<-wake
}

func (s *simulation) drain() {
	for s.queue.Len() > 0 {
		next := heap.Pop(&s.queue).(sleeper)
		s.now = next.at
		close(next.wake)
		<-s.parked
	}
}

type sleeper struct {
	at    time.Time
	order int64 // among those of one moment
	wake  chan struct{}
}

type sleepers []sleeper

func (s sleepers) Len() int { return len(s) }
func (s sleepers) Less(i, j int) bool {
	return cmp.Or(s[i].at.Compare(s[j].at), cmp.Compare(s[i].order, s[j].order)) < 0
}
func (s sleepers) Swap(i, j int) { s[i], s[j] = s[j], s[i] }
func (s *sleepers) Push(x any)   { *s = append(*s, x.(sleeper)) }
func (s *sleepers) Pop() any {
	last := len(*s) - 1
	x := (*s)[last]
	*s = (*s)[:last]
	return x
}

// simulatedIAM is that of one account: a token bucket before a store.
type simulatedIAM struct {
	rate, burst, tokens float64
	filled              time.Time
	roles               map[string]plan.Role
	providers           map[policy.ARN]plan.Provider
}

func (i *simulatedIAM) take(now time.Time) bool {
	i.tokens = min(i.burst, i.tokens+i.rate*now.Sub(i.filled).Seconds())
	i.filled = now
	if i.tokens < 1 {
		return false
	}
	i.tokens--
	return true
}

var errThrottled = &smithy.GenericAPIError{Code: "Throttling", Message: "Rate exceeded"}

// simulatedCluster is one cluster's sync.
type simulatedCluster struct {
	*simulation
	account string
	policy  *policy.Policy
	issuer  policy.Issuer
	made    []plan.ServiceAccount
	retryer *retry.Standard
}

func newSimulatedCluster(s *simulation, n int, account string) *simulatedCluster {
	name := fmt.Sprintf("cluster-%03d", n)
	var text strings.Builder
	fmt.Fprintf(&text, "apiVersion: ampbridge.io/v1alpha1\nkind: Policy\ncluster: {name: %s}\ntrust: {permissionsBoundary: "+
		"\"arn:aws:iam::%s:policy/boundary\"}\ndestinations:\n", name, account)
	for d := range simulatedDestinations {
		fmt.Fprintf(&text, "- {name: destination-%d, workspace: \"arn:aws:aps:eu-west-1:%s:workspace/ws-%d\"}\n", d, account, d)
	}
	text.WriteString("grants:\n- {namespaces: [monitoring], serviceAccounts: [\"prometheus-*\"], destinations: [destination-0, " +
		"destination-1, destination-2]}\n")
	p, err := policy.Parse([]byte(text.String()))
	if err != nil {
		panic(err) // the text is this file's
	}
	return &simulatedCluster{
		simulation: s,
		account:    account,
		policy:     p,
		issuer:     policy.Issuer(fmt.Sprintf("https://oidc.eks.eu-west-1.amazonaws.com/id/%032X", n)),
		retryer:    retry.NewStandard(func(o *retry.StandardOptions) { o.MaxAttempts, o.MaxBackoff = simulatedAttempts, simulatedBackoff }),
	}
}

// call is one call to IAM, with its attempts.
func (c *simulatedCluster) call(do func(*simulatedIAM) error) error {
	ctx := context.Background()
	release, err := c.retryer.GetAttemptToken(ctx)
	if err != nil {
		return err
	}
	for attempt := 1; ; attempt++ {
		c.sleep(callLatency)
		c.calls++
		var err error
		if i := c.iam[c.account]; !i.take(c.now) {
			c.throttled++
			err = errThrottled
		} else {
			err = do(i)
		}
		if released := release(err); released != nil {
			return released
		}
		if err == nil || !c.retryer.IsErrorRetryable(err) || attempt == c.retryer.MaxAttempts() {
			return err
		}
		var tokens error
		if release, tokens = c.retryer.GetRetryToken(ctx, err); tokens != nil {
			return err
		}
		delay, err := c.retryer.RetryDelay(attempt, err)
		if err != nil {
			return err
		}
		c.sleep(delay)
	}
}

func (c *simulatedCluster) serviceAccounts() []plan.ServiceAccount {
	for n := len(c.made); n < c.accounts; n++ {
		c.made = append(
			c.made,
			plan.ServiceAccount{
				Namespace: "monitoring",
				Name:      fmt.Sprintf("prometheus-%d", n),
				Injection: policy.InjectionEnabled,
				Created:   c.now,
			},
		)
	}
	return c.made
}

// run syncs once and reports whether the cluster is in sync.
func (c *simulatedCluster) run() bool {
	target := plan.Targets(c.policy, c.issuer)[0]
	found, err := c.observe(target)
	if err != nil {
		return false
	}
	p := c.plan(found)
	if slices.ContainsFunc(p.Changes, func(change plan.Change) bool { return change.Call.Creates() }) {
		// What the account has room for; that it cannot be told holds up nothing.
		for range 2 {
			_ = c.call(func(*simulatedIAM) error { return nil })
		}
	}
	failed := map[policy.ARN]bool{}
	for _, change := range p.Changes {
		// A change that fails takes along those that build on it, as in sync.
		if failed[target.Provider] || failed[change.Resource] || c.apply(change) != nil {
			failed[change.Resource] = true
		}
	}
	return len(failed)+len(p.Refusals) == 0
}

func (c *simulatedCluster) plan(found plan.Account) plan.Plan {
	return plan.Compute(
		plan.Input{
			Policy:          c.policy,
			Issuer:          c.issuer,
			ServiceAccounts: c.serviceAccounts(),
			Accounts:        map[string]plan.Account{c.account: found},
		},
	)
}

// observe makes the reads of awsiam's Observe: the provider, each role and its
// permissions, and the list of the path.
func (c *simulatedCluster) observe(target plan.Target) (found plan.Account, err error) {
	found.Roles = map[string]plan.Role{}
	err = c.call(func(i *simulatedIAM) error {
		if p, exists := i.providers[target.Provider]; exists {
			found.Provider = &p
		}
		return nil
	})
	for _, name := range target.Roles {
		exists := false
		err = errors.Join(err, c.call(func(i *simulatedIAM) error {
			if role, there := i.roles[name]; there {
				exists, found.Roles[name] = true, role
			}
			return nil
		}))
		if exists && err == nil {
			err = c.call(func(*simulatedIAM) error { return nil }) // GetRolePolicy
		}
		if err != nil {
			return found, err
		}
	}
	return found, errors.Join(err, c.call(func(*simulatedIAM) error { return nil })) // ListRoles
}

// apply makes the calls of awsiam's Apply: whose it is, and then the change.
func (c *simulatedCluster) apply(change plan.Change) error {
	if !change.Call.Creates() {
		if err := c.call(func(*simulatedIAM) error { return nil }); err != nil {
			return err
		}
	}
	return c.call(func(i *simulatedIAM) error {
		i.apply(change)
		return nil
	})
}

// apply stores what a change contains.
func (i *simulatedIAM) apply(c plan.Change) {
	if c.Call.OnProvider() {
		p := i.providers[c.Resource]
		if c.Audience != "" && !slices.Contains(p.Audiences, c.Audience) {
			p.Audiences = append(slices.Clip(p.Audiences), c.Audience)
		}
		p.Tags = withTags(p.Tags, c.Tags)
		i.providers[c.Resource] = p
		return
	}
	r := i.roles[c.Resource.RoleName()]
	r.ARN, r.Tags = c.Resource, withTags(r.Tags, c.Tags)
	if c.Trust != nil {
		r.Trust = c.Trust.String()
	}
	if c.Permissions != nil {
		r.Permissions = c.Permissions.String()
	}
	if !c.Boundary.IsZero() {
		r.Boundary = c.Boundary.String()
	}
	if c.MaxSessionSeconds > 0 {
		r.MaxSession, r.Description = time.Duration(c.MaxSessionSeconds)*time.Second, c.Description
	}
	i.roles[c.Resource.RoleName()] = r
}

func withTags(tags, more map[string]string) map[string]string {
	all := maps.Clone(tags)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, more)
	return all
}

// leastCalls is what a run takes that nothing disturbs and that knows what it
// will find: one read of everything there is, and the writes.
func (c *simulatedCluster) leastCalls() int {
	i, target := c.iam[c.account], plan.Targets(c.policy, c.issuer)[0]
	found := plan.Account{Roles: map[string]plan.Role{}}
	least := 2 // the provider, the list
	if p, exists := i.providers[target.Provider]; exists {
		found.Provider = &p
	}
	for _, name := range target.Roles {
		least++
		if role, exists := i.roles[name]; exists {
			found.Roles[name] = role
			least++ // its permissions
		}
	}
	return least + len(c.plan(found).Changes)
}

// lacking counts the service accounts that a role of the cluster's should trust
// and does not, and the roles that trust anybody else.
func (c *simulatedCluster) lacking() (lost int) {
	want := make([]policy.Subject, 0, len(c.serviceAccounts()))
	for _, sa := range c.serviceAccounts() {
		want = append(want, policy.Subject{Namespace: sa.Namespace, ServiceAccount: sa.Name})
	}
	provider := c.issuer.ProviderARN("aws", c.account)
	for _, d := range c.policy.Destinations {
		is, err := policy.ParseDocument(c.iam[c.account].roles[c.policy.Role(d).RoleName()].Trust)
		if err != nil || !policy.Equal(is, policy.TrustDocument(provider, c.issuer, c.policy.Token.Audience, want)) {
			lost++
		}
	}
	return lost
}
