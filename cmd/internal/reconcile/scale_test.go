package reconcile

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/go-jose/go-jose/v4"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/ampbridge/ampbridge/cmd/internal/kube"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/plan"
	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/testkit"
)

const (
	// perAccount fills AWS's default quota of OIDC providers.
	perAccount   = 100
	scaleRegion  = "eu-west-1"
	scaleAccount = "111122223333"
	// callLatency is how long IAM takes to answer.
	callLatency = 40 * time.Millisecond
)

// throttledIAM has the double of AWS answer in the process, behind a token bucket as
// IAM has one for each account. Its rates are not published.
type throttledIAM struct {
	http.Handler
	rate float64

	mu               sync.Mutex
	tokens           float64
	filled           time.Time
	calls, throttled int
	operations       map[string]int
}

// Do implements [aws.HTTPClient].
func (i *throttledIAM) Do(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
	}
	time.Sleep(callLatency)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	w := httptest.NewRecorder()
	if strings.Contains(string(body), "Version=2010-05-08") && !i.take(string(body)) {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.WriteString("<ErrorResponse><Error><Code>Throttling</Code><Message>Rate " +
			"exceeded</Message></Error></ErrorResponse>")
		return w.Result(), nil
	}
	served := r.Clone(r.Context())
	served.Body, served.Host = io.NopCloser(strings.NewReader(string(body))), cmp.Or(r.Host, r.URL.Host)
	i.ServeHTTP(w, served)
	return w.Result(), nil
}

func (i *throttledIAM) take(body string) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	action, _, _ := strings.Cut(strings.TrimPrefix(body, "Action="), "&")
	now := time.Now()
	i.tokens = min(2*i.rate, i.tokens+i.rate*now.Sub(i.filled).Seconds())
	i.filled = now
	i.calls++
	i.operations[action]++
	if i.tokens < 1 {
		i.throttled++
		return false
	}
	i.tokens--
	return true
}

// syncedCluster is one cluster's sync, without Kubernetes.
type syncedCluster struct {
	*worker
	accounts []plan.ServiceAccount
	issuer   policy.Issuer
}

func newSyncedCluster(t *testing.T, n int, client aws.HTTPClient) *syncedCluster {
	text := fmt.Sprintf("apiVersion: ampbridge.io/v1alpha1\nkind: Policy\ncluster: {name: cluster-%03d}\ntrust: "+
		"{permissionsBoundary: \"arn:aws:iam::%s:policy/boundary\"}\ndestinations:\n", n, scaleAccount)
	for d := range 3 {
		text += fmt.Sprintf("- {name: d%d, workspace: "+
			"\"arn:aws:aps:%s:%s:workspace/ws-%d\"}\n", d, scaleRegion, scaleAccount, d)
	}
	text += "grants:\n- {namespaces: [monitoring], serviceAccounts: [\"prometheus-*\"], destinations: [d0, d1, d2]}\n"
	p, err := policy.Parse([]byte(text))
	testkit.Must(t, err)
	o := Options{TrustQuota: plan.TrustQuota, Namespace: "ampbridge"}
	c := &syncedCluster{
		worker: &worker{
			controller: &controller{logger: slog.New(slog.DiscardHandler), log: dedupLog{logger: slog.New(slog.DiscardHandler)}},
			reconciler: o.reconciler(kube.Cluster{Client: fake.NewClientset()}, p),
			lastPolicy: p,
		},
		issuer: policy.Issuer(fmt.Sprintf("https://oidc.eks.eu-west-1.amazonaws.com/id/%032X", n)),
	}
	c.throttled.longest = time.Duration(p.Trust.Interval)
	c.reconciler.throttled = &c.throttled
	c.reconciler.iam.Frugal, c.reconciler.iam.HTTPClient = true, client
	return c
}

// once makes a pass as [worker.pass] does, and reports whether it left nothing undone.
func (c *syncedCluster) once(ctx context.Context) (bool, error) {
	p := c.lastPolicy
	planned, err := c.reconciler.prepare(ctx, snapshot{policy: p, issuer: c.issuer, accounts: c.accounts, orphans: c.untilOrphans == 0})
	if err != nil {
		return false, err
	}
	if ctx.Err() != nil {
		return false, fmt.Errorf("not in sync: %v", planned.Refusals)
	}
	_, failures := c.reconciler.apply(ctx, planned)
	inSync := len(planned.Refusals)+len(failures) == 0
	if inSync && c.untilOrphans == 0 {
		c.untilOrphans = orphansEvery
	}
	c.finish(ctx, p, c.accounts, inSync, linesOf(planned, failures))
	return inSync, nil
}

// converge makes passes until one leaves nothing undone.
func (c *syncedCluster) converge(ctx context.Context) error {
	for {
		if inSync, err := c.once(ctx); err != nil || inSync {
			return err
		}
		sleep(ctx, time.Until(c.due))
	}
}

// lost counts the roles of the cluster that do not trust exactly its service accounts.
func (c *syncedCluster) lost(t *testing.T, roles map[string]string) (lost int) {
	var want []policy.Subject
	for _, sa := range c.accounts {
		want = append(want, policy.Subject{Namespace: sa.Namespace, ServiceAccount: sa.Name})
	}
	p := c.lastPolicy
	for _, d := range p.Destinations {
		trust, err := policy.ParseDocument(roles[p.Role(d).RoleName()])
		wanted := policy.TrustDocument(c.issuer.ProviderARN("aws", scaleAccount), c.issuer, p.Token.Audience, want)
		if err != nil || !policy.Equal(trust, wanted) {
			t.Logf("%s: %v", p.Role(d), err)
			lost++
		}
	}
	return lost
}

// scaleFixture is an account of the double, with the policy and workspaces that sync
// needs, and credentials for it in the environment.
func scaleFixture(t *testing.T) (*awstest.Cloud, *iam.Client) {
	t.Helper()
	cloud := awstest.Start(t, awstest.Options{})
	account := cloud.Account(scaleAccount)
	boundary := `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"aps:RemoteWrite","Resource":"*"}}`
	if _, err := account.PutManagedPolicy("boundary", boundary); err != nil {
		t.Fatal(err)
	}
	for d := range 3 {
		account.AddWorkspace(scaleRegion, fmt.Sprint("ws-", d))
	}
	host := policy.Issuer("https://oidc.eks.eu-west-1.amazonaws.com/id/0")
	if _, err := cloud.RegisterIssuer(string(host), awstest.NewSigner(string(host), jose.RS256), awstest.PublicCA); err != nil {
		t.Fatal(err)
	}
	cloud.Setenv(t, account.AdminCredentials())
	return cloud, iam.NewFromConfig(cloud.Config(account.AdminCredentials(), scaleRegion))
}

// A hundred clusters with three destinations each are installed at the same moment,
// in one account: all of its OIDC providers. Other accounts share nothing with it, so
// that this is a tenth of what a thousand clusters in ten accounts do.
func TestHundredClustersOfAnAccountSyncAtOnce(t *testing.T) {
	for _, test := range []struct {
		rate  float64
		calls int
		took  time.Duration
	}{
		{5, 1800, 6 * time.Minute},
		{20, 1800, 87 * time.Second},
		{100, 1800, 15 * time.Second},
	} {
		t.Run(fmt.Sprint(test.rate, " calls a second"), func(t *testing.T) {
			cloud, admin := scaleFixture(t)
			var clusters []*syncedCluster
			synctest.Test(t, func(t *testing.T) {
				service := &throttledIAM{
					Handler: cloud, rate: test.rate, tokens: 2 * test.rate, filled: time.Now(), operations: map[string]int{},
				}
				for n := range perAccount {
					clusters = append(clusters, newSyncedCluster(t, n, service))
				}
				for _, phase := range []string{"from nothing", "a service account more", "nothing new"} {
					service.calls, service.throttled, service.operations = 0, 0, map[string]int{}
					begun := time.Now()
					ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
					var group errgroup.Group
					for _, c := range clusters {
						if phase != "nothing new" {
							c.accounts = append(c.accounts, plan.ServiceAccount{
								Namespace: "monitoring", Name: fmt.Sprint("prometheus-", len(c.accounts)),
								Injection: policy.InjectionEnabled, Created: time.Now(),
							})
						}
						group.Go(func() error {
							if phase == "from nothing" {
								sleep(ctx, firstPause(c.lastPolicy))
							}
							return c.converge(ctx)
						})
					}
					testkit.Must(t, group.Wait())
					cancel()
					took := time.Since(begun)
					t.Logf("%s: %v, %d calls, of which %d throttled: %v", phase, took.Round(time.Second), service.calls, service.throttled,
						service.operations)
					if phase == "from nothing" && (service.calls > test.calls || took > test.took) {
						t.Errorf("it took %v and %d calls, want %v and %d at most", took, service.calls, test.took, test.calls)
					}
				}
			})
			roles, lost := map[string]string{}, 0
			for pages := iam.NewListRolesPaginator(admin, &iam.ListRolesInput{}); pages.HasMorePages(); {
				page, err := pages.NextPage(t.Context())
				testkit.Must(t, err)
				for _, r := range page.Roles {
					trust, err := url.PathUnescape(aws.ToString(r.AssumeRolePolicyDocument))
					testkit.Must(t, err)
					roles[aws.ToString(r.RoleName)] = trust
				}
			}
			for _, c := range clusters {
				lost += c.lost(t, roles)
			}
			if lost > 0 || len(roles) != 3*perAccount {
				t.Errorf("%d lost updates, %d roles", lost, len(roles))
			}
		})
	}
}

// Quotas are read after IAM refused something for one, so that the next pass says who
// is refused. Before that they cost no call.
func TestQuotasAreReadAfterARefusal(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*awstest.Quotas)
		// reads says whether the quotas are read.
		reads bool
		want  string
	}{
		{"enough", func(*awstest.Quotas) {}, false, ""},
		{"of roles", func(q *awstest.Quotas) { q.Roles = 2 }, true, "has no quota left for the roles of destination d2"},
		{"of providers", func(q *awstest.Quotas) { q.Providers = 0 }, true, "LimitExceeded"},
	} {
		t.Run(test.name, func(t *testing.T) {
			cloud, _ := scaleFixture(t)
			cloud.Account(scaleAccount).SetQuotas(test.change)
			c := newSyncedCluster(t, 0, nil)
			c.accounts = []plan.ServiceAccount{{Namespace: "monitoring", Name: "prometheus-0", Injection: policy.InjectionEnabled}}
			in := snapshot{policy: c.lastPolicy, issuer: c.issuer, accounts: c.accounts, orphans: true}
			var text string
			for range 2 {
				planned, err := c.reconciler.prepare(t.Context(), in)
				testkit.Must(t, err)
				_, failures := c.reconciler.apply(t.Context(), planned)
				text = fmt.Sprint(planned.Refusals, failures)
			}
			read := slices.ContainsFunc(cloud.Calls(), func(c awstest.Call) bool { return c.Action == "GetAccountSummary" })
			if read != test.reads || !strings.Contains(text, test.want) {
				t.Errorf("quotas read: %v; the second pass: %s", read, text)
			}
		})
	}
}
