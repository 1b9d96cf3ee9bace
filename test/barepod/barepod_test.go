package barepod_test

import (
	"testing"
	"time"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/barepod"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/tools"
)

// TestMissing: a sample that AMP drops is found missing, and only that one, with either
// delivery; so is none that comes late.
func TestMissing(t *testing.T) {
	site := barepod.New(t)
	for _, delivery := range []policy.Delivery{policy.DeliveryRelay, policy.DeliverySigV4} {
		t.Run(string(delivery), func(t *testing.T) {
			pod := site.Pod(t, barepod.Options{Program: tools.Path(t, "prometheus"), Version: "3.15", Delivery: delivery})
			pod.Start(t)
			pod.EventuallyDelivered(t, 1)

			stop := pod.Fail("aps:RemoteWrite", awstest.ServerError)
			time.Sleep(2 * time.Second)
			stop()
			pod.EventuallyDelivered(t, 1)

			const code = "ValidationException"
			stop = pod.Fail("aps:RemoteWrite", awstest.Respond(400, code, "refused by the test"))
			testkit.Eventually(t, "a write is refused", func() bool {
				until := pod.Count() - 1
				return len(pod.Missing(1, until, code)) < len(pod.Missing(1, until))
			})
			stop()
			last := pod.Count()
			pod.EventuallyDelivered(t, last+1)
			if missing := pod.Missing(1, last); len(missing) == 0 {
				t.Error("samples that AMP dropped are not found missing")
			}
			if missing := pod.Missing(1, last, code); len(missing) != 0 {
				t.Errorf("missing beyond those that AMP dropped: %v", missing)
			}
			pod.CheckUnharmed(t, 0)
		})
	}
}
