package certificates

import (
	"crypto/x509"
	"testing"
	"time"

	"github.com/ampbridge/ampbridge/test/testkit"
)

var (
	start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	names = []string{"webhook", "webhook.ampbridge", "webhook.ampbridge.svc"}
)

func newPair(t *testing.T, issued time.Time, names ...string) *Pair {
	t.Helper()
	p, err := Issue(names, issued, 90*day)
	testkit.Must(t, err)
	return p
}

// trusting is a configuration with two entries that both trust the pairs.
func trusting(pairs ...*Pair) Bundles {
	var all []*x509.Certificate
	for _, p := range pairs {
		all = append(all, p.authority)
	}
	return Bundles{Version: "uid/1", Entries: [][]byte{encodeBundle(all), encodeBundle(all)}}
}

func authorities(pairs ...*Pair) []*x509.Certificate {
	return parseBundle(trusting(pairs...).Entries[0])
}

// Each row is a state, the clock and what is observed, and the one step that
// follows.
func TestNext(t *testing.T) {
	a, b, c := newPair(t, start, names...), newPair(t, start, names...), newPair(t, start, names...)
	elsewhere := newPair(t, start, "other.ampbridge.svc")
	stripped := Bundles{Version: "uid/2", Entries: [][]byte{trusting(a).Entries[0], nil}}
	rubbish := Bundles{
		Version: "uid/1",
		Entries: [][]byte{append([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), trusting(b).Entries[0]...)},
	}
	announced := Announcement{Version: "uid/1", At: start}
	const m = time.Minute
	for _, test := range []struct {
		name    string
		state   State
		after   time.Duration // since start
		serving *Pair
		trusted Bundles
		want    Step
	}{
		{"nothing", State{}, 0, nil, Bundles{Entries: [][]byte{nil}}, Step{Action: Generate}},
		{"lost, and serving by this replica", State{}, 0, a, trusting(a), Step{Action: Restore}},
		{"lost, and what was serving has ended", State{}, 91 * day, a, trusting(a), Step{Action: Generate}},
		{"lost during a rotation, serving by this replica", State{Next: b}, 0, a, trusting(a, b), Step{Action: Restore}},
		{"lost during a rotation, the next one is serving", State{Next: b, Announced: announced}, m, b, trusting(b), Step{Wait, 9 * m}},
		{"lost during a rotation, serving by another", State{Next: b, Previous: authorities(a)}, m, nil, trusting(a), Step{Action: Publish}},

		{"first, not trusted yet", State{Current: a}, 0, a, Bundles{Entries: [][]byte{nil, nil}}, Step{Action: Publish}},
		{"stable", State{Current: a}, 0, a, trusting(a), Step{Wait, 60 * day}},
		{"stable, seen by a replica that holds nothing", State{Current: a}, 0, nil, trusting(a), Step{Wait, 60 * day}},
		{"stripped in one entry", State{Current: a}, 0, a, stripped, Step{Action: Publish}},
		{"a stranger is trusted as well", State{Current: a}, 0, a, trusting(a, b), Step{Action: Publish}},
		{"a stranger is trusted instead", State{Current: a}, 0, a, trusting(b), Step{Action: Publish}},
		{"rubbish in the bundle", State{Current: a}, 0, a, rubbish, Step{Action: Publish}},
		{"asked for", State{Current: a, Rotate: true}, 0, a, trusting(a), Step{Action: Generate}},
		{"other names", State{Current: elsewhere}, 0, elsewhere, trusting(elsewhere), Step{Action: Generate}},
		{"almost due", State{Current: a}, 60*day - m, a, trusting(a), Step{Wait, m}},
		{"due", State{Current: a}, 60 * day, a, trusting(a), Step{Action: Generate}},

		{"next, unknown", State{Current: a, Next: b}, 0, a, trusting(a), Step{Action: Publish}},
		{"next, published", State{Current: a, Next: b}, 0, a, trusting(a, b), Step{Action: Announce}},
		{"next, published in any order", State{Current: a, Next: b}, 0, a, trusting(b, a), Step{Action: Announce}},
		{"next, announced", State{Current: a, Next: b, Announced: announced}, 4 * m, a, trusting(a, b), Step{Wait, 6 * m}},
		{"next, announced long enough", State{Current: a, Next: b, Announced: announced}, 10 * m, a, trusting(a, b), Step{Action: Switch}},
		{"next, stripped meanwhile", State{Current: a, Next: b, Announced: announced}, 10 * m, a, stripped, Step{Action: Publish}},
		{"next, stripped and restored meanwhile", State{Current: a, Next: b, Announced: announced}, 10 * m, a,
			Bundles{Version: "uid/3", Entries: trusting(a, b).Entries}, Step{Action: Announce}},
		{"next, asked for again", State{Current: a, Next: b, Announced: announced, Rotate: true}, 4 * m, a, trusting(a, b), Step{Wait, 6 * m}},

		{"switched", State{Current: b, Previous: authorities(a), Switched: start}, m, b, trusting(a, b), Step{Wait, 59 * m}},
		{"switched, seen by a replica that holds the old one", State{Current: b, Previous: authorities(a), Switched: start}, m, a,
			trusting(a, b), Step{Wait, 59 * m}},
		{"switched, stripped", State{Current: b, Previous: authorities(a), Switched: start}, m, b, trusting(b), Step{Action: Publish}},
		{"switched long enough", State{Current: b, Previous: authorities(a), Switched: start}, 60 * m, b, trusting(a, b), Step{Action: Retire}},
		{"retired, still trusted", State{Current: b, Switched: start}, 60 * m, b, trusting(a, b), Step{Action: Publish}},
		{"switched, asked for again", State{Current: b, Previous: authorities(a), Switched: start, Rotate: true}, m, b, trusting(a, b),
			Step{Action: Generate}},
		{"three at once", State{Current: b, Next: c, Previous: authorities(a), Switched: start}, m, b, trusting(a, b, c), Step{Action: Announce}},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := Observed{Now: start.Add(test.after), Names: names, Serving: test.serving, Trusted: test.trusted}
			if got := Next(test.state, o, Timing{}); got != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

// Replicas may stop at any time. In every order of steps, no replica serves a certificate that is
// not trusted, and in the end the state is stable.
func TestNoMomentOfDisagreement(t *testing.T) {
	for _, test := range []struct {
		name string
		// disturb happens before a step.
		disturb func(step int, w *model)
		// keeps: the rotation that was asked for is forgotten with the Secret.
		keeps bool
	}{
		{"undisturbed", func(int, *model) {}, false},
		{"the Secret is lost in each step", func(step int, w *model) {
			if step < 12 {
				w.state = State{}
			}
		}, true},
		{"the Secret is lost once", func(step int, w *model) {
			if step == 4 {
				w.state = State{}
			}
		}, true},
		{"one replica sleeps", func(step int, w *model) { w.asleep = step%10 < 5 }, false},
		{"a replica starts anew in each step", func(step int, w *model) { w.serving[1-step%2] = nil }, false},
		{"a replica starts anew while the Secret is lost", func(step int, w *model) {
			if step == 3 {
				w.state, w.serving[0] = State{}, nil
			}
		}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := &model{T: t, now: start}
			for w.pass(0) || w.pass(1) {
			}
			first := w.serving[0]
			w.state.Rotate = true
			for step := range 200 {
				test.disturb(step, w)
				for replica := range w.serving {
					if replica == 1 && w.asleep {
						continue
					}
					w.pass(replica)
				}
				w.now = w.now.Add(time.Minute)
			}
			if w.state.Name() != "stable" || !w.serving[0].Equal(w.state.Current) || !w.serving[1].Equal(w.state.Current) {
				t.Errorf(
					"in the end: state %s, replicas serve it: %v, %v",
					w.state.Name(),
					w.serving[0].Equal(w.state.Current),
					w.serving[1].Equal(w.state.Current),
				)
			}
			if w.serving[0].Equal(first) != test.keeps {
				t.Errorf("the first certificate is still served: got %v, want %v; %v", !test.keeps, test.keeps, w.taken)
			}
		})
	}
}

// model is two replicas, a Secret and a configuration, without a cluster.
type model struct {
	*testing.T
	now     time.Time
	state   State
	trusted Bundles
	serving [2]*Pair
	asleep  bool
	taken   []Action
}

// pass is what a Rotator does in one pass; it reports whether it did anything.
func (w *model) pass(replica int) bool {
	w.Helper()
	if w.trusted.Version == "" {
		w.trusted = Bundles{Version: "uid/1", Entries: [][]byte{nil, nil}}
	}
	o := Observed{Now: w.now, Names: names, Serving: w.serving[replica], Trusted: w.trusted}
	if p := w.state.Serve(o); p != nil {
		// A replica that serves a trusted certificate must continue with a trusted one.
		if o.Trusted.Cover(o.Serving) && !o.Trusted.Cover(p) {
			w.Fatalf("at %s: replica %d begins to serve what is not trusted, after %v", w.now.Sub(start), replica, w.taken)
		}
		w.serving[replica], o.Serving = p, p
	}
	step := Next(w.state, o, Timing{})
	if step.Action == Wait {
		return false
	}
	w.taken = append(w.taken, step.Action)
	if step.Action != Publish {
		var fresh *Pair
		if step.Action == Generate {
			fresh = newPair(w.T, w.now, names...)
		}
		w.state = w.state.After(step.Action, o, fresh)
		return true
	}
	bundle := encodeBundle(w.state.Authorities())
	next := Bundles{Version: w.trusted.Version + "+", Entries: [][]byte{bundle, bundle}}
	for other, p := range w.serving {
		if w.trusted.Cover(p) && !next.Cover(p) {
			w.Fatalf("at %s: replica %d is no longer trusted, after %v", w.now.Sub(start), other, w.taken)
		}
	}
	w.trusted = next
	return true
}
