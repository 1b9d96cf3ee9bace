package reconcile

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// A process that stands by is ready while a leader lives, and through the time in
// which another process takes over from a dead one.
func TestLeaderless(t *testing.T) {
	held := func(holder string, renewed int64) resourcelock.LeaderElectionRecord {
		return resourcelock.LeaderElectionRecord{HolderIdentity: holder, RenewTime: metav1.Unix(renewed, 0)}
	}
	// reads is a leadership that reads the Lease again and again, with a long pause before each.
	reads := func(records ...resourcelock.LeaderElectionRecord) func(*leadership) {
		return func(l *leadership) {
			for _, r := range records {
				l.renewed = l.renewed.Add(-leaderSeenFor)
				l.observe(r)
			}
		}
	}
	for _, test := range []struct {
		name string
		seen func(*leadership)
		// later is how long after the last observation the question comes.
		later time.Duration
		// want is part of the reason; empty: there is a leader.
		want string
	}{
		{"nothing read yet", func(*leadership) {}, 0, "it is free"},
		{"a leader", reads(held("a", 1)), 0, ""},
		{"a leader that died, while another takes over", reads(held("a", 1)), leaseDuration + 2*renewPeriod, ""},
		{"a leader that died long ago", reads(held("a", 1)), leaderSeenFor, "a holds it and has not renewed it since"},
		{"a dead leader that is read again and again", reads(held("a", 1), held("a", 1)), 0, "a holds it and has not renewed it since"},
		{"one that renews", reads(held("a", 1), held("a", 2)), 0, ""},
		{"one that took over", reads(held("a", 1), held("b", 1)), 0, ""},
		{"given back", func(l *leadership) {
			l.observe(held("a", 1))
			l.observe(held("", 2))
		}, 0, "it is free"},
		{"one failed read", func(l *leadership) {
			l.observe(held("a", 1))
			l.failed(errors.New("refused"))
		}, renewPeriod, ""},
		{"failed reads for long", func(l *leadership) {
			l.observe(held("a", 1))
			l.failed(errors.New("refused"))
		}, leaderSeenFor, "refused"},
		{"no right from the start", func(l *leadership) { l.failed(errors.New("forbidden")) }, 0, "forbidden"},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := &leadership{metric: prometheus.NewGauge(prometheus.GaugeOpts{Name: "seen"})}
			test.seen(l)
			err := l.leaderless(time.Now().Add(test.later))
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}
