package reconcile_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iam"
	iamtypes "github.com/aws/aws-sdk-go-v2/service/iam/types"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ampbridge/ampbridge/cmd/internal/reconcile"
	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/cluster"
	"github.com/ampbridge/ampbridge/test/metricstest"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/webhooktest"
)

// quick compares with AWS every second.
var quick = strings.Replace(policyText, "trust: {", "trust: {interval: 1s, ", 1)

// process is one running controller.
type process struct {
	*bridge
	policy  string
	options reconcile.Options
	stop    func() error
	ended   chan struct{}
	log     *testkit.Buffer
}

func (b *bridge) control(policyText string, changes ...func(*reconcile.Options)) *process {
	b.Helper()
	if !strings.Contains(policyText, "interval: ") {
		// The first pass comes within a second then.
		policyText = strings.Replace(policyText, "trust: {", "trust: {interval: 1m, ", 1)
	}
	p := &process{bridge: b, policy: testkit.TempFile(b, "policy.yaml", policyText), log: &testkit.Buffer{}, ended: make(chan struct{})}
	p.options = reconcile.Options{
		Policy: p.policy, Kubeconfig: b.kubeconfig, Output: reconcile.Text, TrustQuota: 2048, Namespace: "ampbridge",
		HealthAddr: testkit.FreeAddr(b), MetricsAddr: testkit.FreeAddr(b),
	}
	for _, change := range changes {
		change(&p.options)
	}
	ctx, cancel := context.WithCancel(b.ctx)
	var ended error
	go func() {
		defer close(p.ended)
		ended = reconcile.Control(ctx, p.options, slog.New(slog.NewJSONHandler(p.log, nil)))
	}()
	p.stop = func() error { cancel(); <-p.ended; return ended }
	b.Cleanup(func() {
		if err := p.stop(); err != nil && !strings.Contains(err.Error(), "is lost to another process") {
			b.Errorf("the controller ended with %v", err)
		}
		if b.Failed() {
			b.Logf("log:\n%s", p.log)
		}
	})
	return p
}

// get returns the body of an answer, or the error.
func (p *process) get(url string) string {
	text, err := testkit.Get(p.ctx, url)
	if err != nil {
		return err.Error()
	}
	return text
}

// metric is the value of a sample as /metrics writes it; -1: there is none.
func (p *process) metric(sample string) float64 {
	if value, ok := metricstest.Value(p.get("http://"+p.options.MetricsAddr+"/metrics"), sample); ok {
		return value
	}
	return -1
}

// ready is the answer of /readyz.
func (p *process) ready() string { return p.get("http://" + p.options.HealthAddr + "/readyz") }

// leaseRights makes a service account that may read the state and has those
// rights to the Lease.
func (b *bridge) leaseRights(name string, verbs []string) {
	b.Helper()
	rules := []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: []string{"ampbridge-sync"}, Verbs: []string{"get"}},
	}
	if len(verbs) > 0 {
		rules = append(rules, rbacv1.PolicyRule{
			APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, ResourceNames: []string{"ampbridge-sync"}, Verbs: verbs,
		})
	}
	b.must(b.cluster.Identity(b.ctx, "ampbridge", name, cluster.Rights{Namespace: rules}))
}

func (p *process) inSync() bool {
	return p.metric("ampbridge_sync_last_success_timestamp_seconds") > 0
}

func (b *bridge) eventually(what string, holds func() bool) {
	b.Helper()
	testkit.Within(b, time.Minute, what, holds)
}

func (b *bridge) actions(from int) map[string]int {
	count := map[string]int{}
	for _, c := range b.cloud.Calls()[from:] {
		if c.Service == "iam" {
			count[c.Action]++
		}
	}
	return count
}

// described counts how often workspaces were looked for.
func (b *bridge) described() (n int) {
	for _, c := range b.cloud.Calls() {
		if c.Service == "aps" && c.Action == "DescribeWorkspace" {
			n++
		}
	}
	return n
}

// eventsOf lists the reasons of a service account's events.
func (b *bridge) eventsOf(name string) string {
	b.Helper()
	list, err := b.cluster.Client().CoreV1().Events("monitoring").List(
		b.ctx,
		metav1.ListOptions{FieldSelector: "involvedObject.kind=ServiceAccount,involvedObject.name=" + name},
	)
	b.must(err)
	var reasons []string
	for _, e := range list.Items {
		if e.InvolvedObject.UID != "" {
			reasons = append(reasons, e.Reason)
		}
	}
	return strings.Join(reasons, " ")
}

func (b *bridge) deleteServiceAccount(name string) {
	b.Helper()
	b.must(b.cluster.Client().CoreV1().ServiceAccounts("monitoring").Delete(b.ctx, name, metav1.DeleteOptions{}))
}

func TestController(t *testing.T) {
	b := start(t)

	t.Run("two processes, one of which works, and a new service account", func(t *testing.T) {
		b := b.aws(t)
		one, two := b.control(policyText), b.control(policyText)
		b.eventually("in sync", func() bool { return one.inSync() || two.inSync() })
		leader, other := one, two
		if two.inSync() {
			leader, other = two, one
		}
		if leader.metric("ampbridge_sync_leader") != 1 || other.metric("ampbridge_sync_leader") != 0 {
			t.Error("not exactly one leads")
		}
		// The one that stands by sees the leader at its next look at the Lease.
		b.eventually("both are ready", func() bool { return one.ready() == "ok\n" && two.ready() == "ok\n" })
		for _, p := range []*process{one, two} {
			if p.metric("ampbridge_sync_last_leader_seen_timestamp_seconds") == 0 {
				t.Error("a process has never seen a leader")
			}
		}
		before := len(b.cloud.Calls())
		began := time.Now()
		b.serviceAccount("monitoring", "prometheus-new")
		b.eventually("a new service account assumes its role", func() bool { return b.assume("monitoring", "prometheus-new") == nil })
		t.Logf("a new service account assumed its role after %v", time.Since(began).Round(10*time.Millisecond))
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("a new service account was trusted after %v", took)
		}
		if writes := b.actions(before)["UpdateAssumeRolePolicy"]; writes != 1 {
			t.Errorf("%d writes of the trust document, want 1", writes)
		}
		b.eventually("an event", func() bool { return b.eventsOf("prometheus-new") == "Trusted" })

		b.must(leader.stop())
		b.serviceAccount("monitoring", "prometheus-newer")
		b.eventually("the other takes over", func() bool { return b.assume("monitoring", "prometheus-newer") == nil })
		b.eventually("the other is ready", func() bool { return other.ready() == "ok\n" })
		if other.metric("ampbridge_sync_leader") != 1 || other.metric(`ampbridge_sync_subjects{destination="central"}`) != 3 {
			t.Error("the other does not lead, or does not count 3 subjects")
		}

		// A Helm upgrade.
		before = len(b.cloud.Calls())
		b.deleteServiceAccount("prometheus-new")
		b.eventually("the deletion was looked at", func() bool { return b.actions(before)["GetRole"] > 0 })
		b.serviceAccount("monitoring", "prometheus-new")
		b.must(b.assume("monitoring", "prometheus-new"))
		if writes := b.actions(before)["UpdateAssumeRolePolicy"]; writes != 0 {
			t.Errorf("%d writes of the trust document for a service account that was made again", writes)
		}
	})

	t.Run("nothing to do costs three reads", func(t *testing.T) {
		b := b.aws(t)
		p := b.control(quick)
		b.eventually("five passes", func() bool { return b.actions(0)["GetRolePolicy"] >= 6 })
		b.must(p.stop())
		count := b.actions(0)
		writes := count["CreateOpenIDConnectProvider"] + count["CreateRole"] + count["PutRolePolicy"]
		passes := count["GetOpenIDConnectProvider"]
		// The first pass makes the role: the list shows none, and no other read is needed.
		if writes != 3 || count["ListRoles"] != 1 || len(count) != 7 ||
			count["GetRole"] > passes-1 ||
			count["GetRolePolicy"] > passes {
			t.Errorf("calls: %v", count)
		}
		if n := b.described(); n != 1 {
			t.Errorf("the workspace was looked for %d times", n)
		}
		t.Logf("%d passes: %v", passes, count)
		if text := p.log.String(); strings.Count(text, "\n") > 12 {
			t.Errorf("not quiet:\n%s", text)
		}
	})

	t.Run("drift, policy and failures", func(t *testing.T) {
		b := b.aws(t)
		p := b.control(quick)
		b.eventually("in sync", p.inSync)
		_, err := b.admin().PutRolePolicy(
			b.ctx,
			&iam.PutRolePolicyInput{RoleName: new(roleName), PolicyName: new("ampbridge"), PolicyDocument: new(
				`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"aps:*","Resource":"*"}]}`)},
		)
		b.must(err)
		b.eventually("drift is counted", func() bool { return p.metric("ampbridge_sync_drift_found_total") == 1 })
		_, err = b.admin().TagRole(b.ctx, &iam.TagRoleInput{
			RoleName: new(roleName), Tags: []iamtypes.Tag{{Key: new("team"), Value: new("admins")}},
		})
		b.must(err)
		b.eventually("a tag of somebody else is reported", func() bool {
			return p.metric("ampbridge_sync_foreign_additions") == 1 &&
				strings.Contains(p.log.String(), "other systems may give it rights because of them: team")
		})
		b.eventually(
			"drift is fixed",
			func() bool { return p.metric(`ampbridge_sync_changes_total{kind="PutRolePolicy",result="made"}`) == 2 },
		)

		testkit.WriteFile(b, p.policy, "kind: Nonsense")
		b.eventually("a bad policy is reported", func() bool { return p.metric("ampbridge_policy_last_load_success") == 0 })
		revoked := strings.Replace(quick, `"prometheus*"`, "prometheus", 1)
		b.must(b.assume("monitoring", "prometheus-new"))
		testkit.WriteFile(b, p.policy, revoked)
		b.eventually("a grant that ends", func() bool { return b.assume("monitoring", "prometheus-new") != nil })

		before := p.metric(`ampbridge_sync_iam_calls_total{operation="GetRole",result="AccessDenied"}`)
		denied := b.cloud.Fail("iam:GetRole", awstest.Deny)
		b.eventually("three passes fail", func() bool {
			return p.metric(`ampbridge_sync_iam_calls_total{operation="GetRole",result="AccessDenied"}`) >= before+4
		})
		if p.metric("ampbridge_sync_refusals") != 1 {
			t.Error("the refusal is not counted")
		}
		denied.Stop()
		b.eventually("in sync again", func() bool { return p.metric("ampbridge_sync_refusals") == 0 })
		b.must(p.stop())
		if n := strings.Count(p.log.String(), "AccessDenied"); n != 1 {
			t.Errorf("the failure was logged %d times", n)
		}
	})

	t.Run("a service account that is gone for long is pruned, and that is no drift", func(t *testing.T) {
		b := b.aws(t)
		p := b.control(strings.Replace(quick, "trust: {", "trust: {pruneAfter: 3s, ", 1))
		b.eventually("in sync", p.inSync)
		const subjects = `ampbridge_sync_subjects{destination="central"}`
		before := p.metric(subjects)
		b.serviceAccount("monitoring", "prometheus-short-lived")
		b.eventually("trusted", func() bool { return p.metric(subjects) == before+1 })
		b.deleteServiceAccount("prometheus-short-lived")
		b.eventually("pruned", func() bool { return p.metric(subjects) == before })
		b.eventually("forgotten", func() bool { return b.stored() == "{}" })
		if n := p.metric("ampbridge_sync_drift_found_total"); n != 0 {
			t.Errorf("%v changes counted as drift", n)
		}
		if n := b.actions(0)["UpdateAssumeRolePolicy"]; n != 2 {
			t.Errorf("%d writes of the trust document, want 2: in and out", n)
		}
		b.serviceAccount("monitoring", "prometheus-short-lived")
		b.eventually("trusted once more", func() bool { return p.metric(subjects) == before+1 })
	})

	t.Run("a process that loses the Lease ends, and writes nothing more", func(t *testing.T) {
		b := b.aws(t)
		p := b.control(quick)
		b.eventually("in sync", p.inSync)
		leases := b.cluster.Client().CoordinationV1().Leases("ampbridge")
		b.eventually("the Lease is taken", func() bool {
			lease, err := leases.Get(b.ctx, "ampbridge-sync", metav1.GetOptions{})
			b.must(err)
			lease.Spec.HolderIdentity = new("somebody else")
			_, err = leases.Update(b.ctx, lease, metav1.UpdateOptions{})
			return err == nil
		})
		select {
		case <-p.ended:
		case <-time.After(60 * time.Second):
			t.Fatal("the process goes on")
		}
		if err := p.stop(); err == nil {
			t.Error("it ended without an error, so that nothing restarts it")
		}
		// At once, and not when it has failed to renew for ten seconds.
		if !strings.Contains(p.log.String(), `"another process holds the Lease","holder":"somebody else"`) {
			t.Errorf("it did not stop because of the other:\n%s", p.log)
		}
		before := len(b.cloud.Calls())
		time.Sleep(2 * time.Second) // two intervals
		if calls := b.actions(before); len(calls) > 0 {
			t.Errorf("calls after the end: %v", calls)
		}
		b.must(leases.Delete(b.ctx, "ampbridge-sync", metav1.DeleteOptions{}))
	})

	t.Run("a Lease that is deleted is created again, and the leader leads on", func(t *testing.T) {
		b := b.aws(t)
		p := b.control(quick)
		b.eventually("in sync", p.inSync)
		leases := b.cluster.Client().CoordinationV1().Leases("ampbridge")
		for range 2 {
			was, err := leases.Get(b.ctx, "ampbridge-sync", metav1.GetOptions{})
			b.must(err)
			b.must(leases.Delete(b.ctx, "ampbridge-sync", metav1.DeleteOptions{}))
			b.eventually("the Lease is back", func() bool {
				now, err := leases.Get(b.ctx, "ampbridge-sync", metav1.GetOptions{})
				return err == nil && now.UID != was.UID && now.Spec.HolderIdentity != nil &&
					*now.Spec.HolderIdentity == *was.Spec.HolderIdentity
			})
		}
		// An uninstall deletes the ConfigMap, and the garbage collector the Lease.
		lease, err := leases.Get(b.ctx, "ampbridge-sync", metav1.GetOptions{})
		b.must(err)
		state, err := b.cluster.Client().CoreV1().ConfigMaps("ampbridge").Get(b.ctx, "ampbridge-sync", metav1.GetOptions{})
		b.must(err)
		if owners := lease.OwnerReferences; len(owners) != 1 || owners[0].UID != state.UID {
			t.Errorf("the Lease's owners are %+v, want ConfigMap ampbridge-sync", owners)
		}
		if p.metric("ampbridge_sync_leader") != 1 || p.ready() != "ok\n" {
			t.Errorf("it does not lead: %s", p.ready())
		}
	})

	t.Run("without the right to the Lease nothing is ready, and the reason is there", func(t *testing.T) {
		b := b.aws(t)
		for name, verbs := range map[string][]string{"none": nil, "no-create": {"get", "update"}, "no-patch": {"get", "update", "create"}} {
			b.leaseRights("sync-"+name, verbs)
			kubeconfig, err := b.cluster.KubeconfigFor(b.ctx, "ampbridge", "sync-"+name)
			b.must(err)
			_ = b.cluster.Client().CoordinationV1().Leases("ampbridge").Delete(b.ctx, "ampbridge-sync", metav1.DeleteOptions{})
			p := b.control(policyText, func(o *reconcile.Options) { o.Kubeconfig = kubeconfig })
			b.eventually(name+" says why", func() bool {
				text := p.ready()
				return strings.Contains(text, "no process of sync leads: Lease ampbridge-sync: ") && strings.Contains(text, "forbidden")
			})
			if p.metric("ampbridge_sync_leader") != 0 || p.metric("ampbridge_sync_last_leader_seen_timestamp_seconds") != 0 {
				t.Errorf("%s: it leads, or has seen a leader", name)
			}
			b.must(p.stop())
		}
	})

	t.Run("events", func(t *testing.T) {
		b := b.aws(t)
		capped := strings.Replace(policyText, "destinations: [central]}", "destinations: [central], maxSubjectsPerNamespace: 1}", 1)
		p := b.control(capped)
		b.eventually("in sync", p.inSync)
		b.serviceAccount("monitoring", "prometheus-late")
		b.eventually("CapReached", func() bool { return b.eventsOf("prometheus-late") == "CapReached" })
		b.serviceAccount("monitoring", "stranger")
		b.ask("stranger", "true")
		b.eventually("NotGranted", func() bool { return b.eventsOf("stranger") == "NotGranted" })
		if other := b.eventsOf("default"); other != "" {
			t.Errorf("an account that did not ask has events: %s", other)
		}
	})

	t.Run("the auditor", func(t *testing.T) {
		b := b.aws(t)
		b.auditorsRights()
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "prometheus-0"},
			Spec:       webhooktest.Prometheus("prometheus"),
		}
		_, err := b.cluster.Client().CoreV1().Pods("monitoring").Create(b.ctx, pod, metav1.CreateOptions{})
		b.must(err)
		p := b.control(policyText, func(o *reconcile.Options) { o.Image, o.StatusAddr = "example/ampbridge:1", testkit.FreeAddr(b) })
		// No webhook is registered here, so the pod has slipped through.
		b.eventually("the auditor counts the pod", func() bool { return p.metric(`ampbridge_audit_pods{finding="missed"}`) == 1 })
		p.showsStatus()
	})
}

// showsStatus reads the status page, which shows what pass and audit saw, and checks that a
// request calls nothing.
func (p *process) showsStatus() {
	p.Helper()
	page := func() string { return p.get("http://" + p.options.StatusAddr + "/") }
	p.eventually("the page shows a pass and an audit", func() bool {
		text := page()
		return strings.Contains(text, "AWS is in sync with the policy") && strings.Contains(text, "prometheus-0")
	})
	for _, secret := range []string{"AKIA", "ASIA", "eyJ", "aws_secret"} {
		if strings.Contains(page(), secret) {
			p.Errorf("the page has %q", secret)
		}
	}
	const passed = "ampbridge_sync_last_success_timestamp_seconds"
	// A pass that comes in between calls AWS. It is seldom, so one of three tries has none.
	for try := range 3 {
		before, pass := len(p.cloud.Calls()), p.metric(passed)
		for range 200 {
			if !strings.Contains(page(), "ampbridge sync") {
				p.Fatal("the page is gone")
			}
		}
		calls := len(p.cloud.Calls()) - before
		if calls == 0 {
			return
		}
		if p.metric(passed) == pass || try == 2 {
			p.Fatalf("200 requests for the page caused %d calls to AWS", calls)
		}
	}
}

// auditorsRights are those that package audit lists, on top of sync's.
func (b *bridge) auditorsRights() {
	b.Helper()
	meta := metav1.ObjectMeta{Name: "auditor"}
	subjects := []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: "ampbridge", Name: "sync"}}
	rbac := b.cluster.Client().RbacV1()
	_, err := rbac.ClusterRoles().Create(b.ctx, &rbacv1.ClusterRole{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"namespaces"}, Verbs: []string{"list", "get"}},
		{APIGroups: []string{""}, Resources: []string{"pods", "limitranges", "resourcequotas"}, Verbs: []string{"list"}},
		{APIGroups: []string{""}, Resources: []string{"serviceaccounts"}, Verbs: []string{"get"}},
		{APIGroups: []string{""}, Resources: []string{"pods/eviction", "events"}, Verbs: []string{"create"}},
	}}, metav1.CreateOptions{})
	b.must(err)
	_, err = rbac.ClusterRoleBindings().Create(b.ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: meta, Subjects: subjects, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "auditor"},
	}, metav1.CreateOptions{})
	b.must(err)
	_, err = rbac.Roles("ampbridge").Create(b.ctx, &rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{
		{
			APIGroups:     []string{""},
			Resources:     []string{"configmaps"},
			ResourceNames: []string{"ampbridge-breaker"},
			Verbs:         []string{"get", "update"},
		},
	}}, metav1.CreateOptions{})
	b.must(err)
	_, err = rbac.RoleBindings("ampbridge").Create(b.ctx, &rbacv1.RoleBinding{
		ObjectMeta: meta, Subjects: subjects, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "auditor"},
	}, metav1.CreateOptions{})
	b.must(err)
}
