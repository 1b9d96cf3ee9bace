package safety_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/barepod"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// TestMovesLoseNothing tests moves from sigv4 to the relay with a second fault. A session cannot be renewed,
// so the move begins. In the middle of it the sidecar ends, at moments when a new process knows less than the
// old one, or all of AWS fails. AMP is slow, so Prometheus always has unsent samples, and would lose them if
// a block was removed too early.
func TestMovesLoseNothing(t *testing.T) {
	t.Parallel()
	const life = 30 * time.Second
	both := func(p *barepod.Pod) bool { return p.Served("sigv4:") && p.Served("password_file:") }
	for _, c := range []struct {
		name string
		// spoil causes the second fault during the outage of STS.
		spoil func(t *testing.T, p *barepod.Pod)
	}{
		{"immediately after the start of the move", func(t *testing.T, p *barepod.Pod) {
			for begun := time.Now(); !both(p); time.Sleep(time.Millisecond) {
				if time.Since(begun) > life {
					t.Fatal("the move has not begun within a session's life")
				}
			}
			p.Sidecar.Kill(t)
		}},
		{"in the middle of the move", func(t *testing.T, p *barepod.Pod) {
			testkit.Eventually(t, "both blocks", func() bool { return both(p) })
			time.Sleep(time.Second)
			p.Sidecar.Kill(t)
		}},
		{"away when the move is due", func(t *testing.T, p *barepod.Pod) {
			time.Sleep(life/2 - 2*time.Second)
			testkit.Must(t, p.Sidecar.Signal(syscall.SIGSTOP))
			time.Sleep(life/4 + time.Second) // until after two thirds
			p.Sidecar.Kill(t)
		}},
		{"stays, but nothing of AWS can be reached when the move is due", func(_ *testing.T, p *barepod.Pod) {
			// From shortly before to shortly after two thirds. The block with sigv4 needs time to send its
			// waiting samples; with a session of several hours it has more than an hour.
			time.Sleep(life * 6 / 10)
			stop := p.Fail("*", awstest.Refuse)
			time.Sleep(life / 10)
			stop()
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := startSigning(t, life)
			stop := p.Fail("sts:*", awstest.Refuse)
			defer stop()
			defer p.Fail("aps:RemoteWrite", awstest.Slow(1500*time.Millisecond))()
			c.spoil(t, p)
			testkit.Eventually(t, "the relay's block alone", func() bool { return !p.Served("sigv4:") && p.Served("password_file:") })
			time.Sleep(5 * time.Second)
			stop()
			p.EventuallyDelivered(t, 1)
			p.CheckUnharmed(t, 0)
		})
	}
}
