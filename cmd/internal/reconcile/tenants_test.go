package reconcile_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// seldom passes come by themselves, so that what comes has another cause.
const seldom = "trust: {interval: 720h, "

// quiet waits until sync is in sync and has not called AWS for a while.
func (p *process) quiet() {
	p.Helper()
	p.eventually("in sync", p.inSync)
	testkit.WriteFile(p, p.policy, strings.Replace(policyText, "trust: {", seldom, 1))
	for last, since := -1, time.Now(); time.Since(since) < 3*time.Second; time.Sleep(50 * time.Millisecond) {
		if n := len(p.cloud.Calls()); n != last {
			last, since = n, time.Now()
		}
	}
}

// ask sets the annotation of a service account that asks for injection.
func (b *bridge) ask(name, value string) {
	b.Helper()
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, policy.AnnotationInject, value)
	accounts := b.cluster.Client().CoreV1().ServiceAccounts("monitoring")
	_, err := accounts.Patch(b.ctx, name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	b.must(err)
}

// A tenant changes something as fast as the API server takes it.
func TestTenantsDoNotSetThePace(t *testing.T) {
	b := start(t)

	t.Run("service accounts without a grant cause no call of AWS", func(t *testing.T) {
		b := b.aws(t)
		p := b.control(policyText)
		p.quiet()
		for i := range 5 {
			b.serviceAccount("monitoring", fmt.Sprint("stranger-", i))
		}
		before, changes := len(b.cloud.Calls()), 0
		accounts := b.cluster.Client().CoreV1().ServiceAccounts("monitoring")
		for end := time.Now().Add(30 * time.Second); time.Now().Before(end); changes++ {
			switch name := fmt.Sprint("stranger-", changes%5); changes % 3 {
			case 0:
				b.ask(name, "true")
			case 1:
				b.ask(name, "false")
			case 2: // another shape: it goes and comes, asking from the start
				b.must(accounts.Delete(b.ctx, name, metav1.DeleteOptions{}))
				_, err := accounts.Create(
					b.ctx,
					&corev1.ServiceAccount{
						ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{policy.AnnotationInject: "true"}},
					},
					metav1.CreateOptions{},
				)
				b.must(err)
			}
		}
		time.Sleep(2 * time.Second)
		if calls := b.cloud.Calls()[before:]; len(calls) > 0 {
			t.Errorf("%d calls after %d changes: %v", len(calls), changes, b.actions(before))
		}
		t.Logf("%d changes, %d calls of AWS", changes, len(b.cloud.Calls())-before)
		// They are told all the same, and who has a grant is not kept waiting.
		b.serviceAccount("monitoring", "stranger-told")
		b.ask("stranger-told", "true")
		b.eventually("an event", func() bool { return b.eventsOf("stranger-told") == "NotGranted" })
		b.serviceAccount("monitoring", "prometheus-granted")
		b.eventually("a granted service account is trusted", func() bool { return b.assume("monitoring", "prometheus-granted") == nil })
	})

	t.Run("a granted service account causes few passes", func(t *testing.T) {
		b := b.aws(t)
		p := b.control(policyText)
		b.serviceAccount("monitoring", "prometheus-restless")
		p.quiet()
		before, changes := len(b.cloud.Calls()), 0
		const span = 20 * time.Second
		for end := time.Now().Add(span); time.Now().Before(end); changes++ {
			b.ask("prometheus-restless", []string{"true", "false"}[changes%2])
			time.Sleep(20 * time.Millisecond)
		}
		time.Sleep(time.Second)
		// Two at once, one every five seconds, and one for the seconds that this takes.
		passes := b.actions(before)["GetOpenIDConnectProvider"]
		t.Logf("%d changes, %d passes", changes, passes)
		if passes > 2+int(span/(5*time.Second))+1 || passes == 0 {
			t.Errorf("%d passes after %d changes in %v", passes, changes, span)
		}
	})

	t.Run("a throttled account keeps its pause", func(t *testing.T) {
		b := b.aws(t)
		p := b.control(policyText)
		p.quiet()
		throttled := b.cloud.Fail("iam:*", awstest.Throttle)
		b.serviceAccount("monitoring", "prometheus-throttled")
		b.eventually("AWS throttles", func() bool { return strings.Contains(p.log.String(), "Throttling") })
		before, changes := len(b.cloud.Calls()), 0
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end); changes++ {
			b.ask("prometheus-throttled", []string{"true", "false"}[changes%2])
			time.Sleep(20 * time.Millisecond)
		}
		// Where a pass has had no answer, a throttled call is not tried again. The pauses
		// are up to 10 s, 20 s and 40 s, and a third of that at least.
		calls := b.actions(before)["GetOpenIDConnectProvider"]
		t.Logf("%d changes, %d attempts", changes, calls)
		if calls > 3 {
			t.Errorf("%d attempts after %d changes", calls, changes)
		}
		throttled.Stop()
		b.ask("prometheus-throttled", "true") // the last change may have been to opt out
		b.eventually("trusted", func() bool { return b.assume("monitoring", "prometheus-throttled") == nil })
		if n := strings.Count(p.log.String(), "AWS throttles the calls to this account"); n > 4 {
			t.Errorf("it was logged %d times", n)
		}
	})
}
