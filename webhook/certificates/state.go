package certificates

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"time"
)

// State is what the Secret holds: all that a rotation needs to be continued by
// whoever comes next. Pairs that cannot be served are left out of it.
type State struct {
	// Current is what replicas serve. Without one they serve Next.
	Current *Pair
	// Next is what they will serve once API servers know its authority.
	Next *Pair
	// Previous are authorities that somebody may still be served by.
	Previous []*x509.Certificate
	// Announced is where all authorities were seen in place, and since when.
	Announced Announcement
	// Switched is since when Current is served, and Previous to be retired.
	Switched time.Time
	// Rotate: a person asks for a new certificate.
	Rotate bool
}

// Announcement is a version of the MutatingWebhookConfiguration that trusts all
// authorities of the state. Another version may have been without them for a
// moment, so the wait begins anew.
type Announcement struct {
	Version string
	At      time.Time
}

// Observed is what a replica sees when it decides.
type Observed struct {
	Now time.Time
	// Names are those that the certificate is to be good for.
	Names []string
	// Serving is what the replica serves; nil: nothing yet.
	Serving *Pair
	// Trusted are the authorities that the API server's configuration names.
	Trusted Bundles
}

// Timing are a rotation's times. The zero values stand for the defaults.
type Timing struct {
	// Life of a certificate and its authority, default 90 days.
	Life time.Duration
	// RenewBefore is how long before its end a certificate is replaced, default 30
	// days: long enough for a holiday of whoever reads the alerts.
	RenewBefore time.Duration
	// Propagation is how long all authorities stand in the configuration before the
	// new certificate is served, default 10 minutes. API servers hear by watch,
	// within a second; the rest is for watches that hang and clocks that differ.
	Propagation time.Duration
	// Retirement is how long the old authority stays after that, default 1 hour.
	// Replicas hear by watch as well; one that has heard nothing for half of this
	// time is not ready, so that none serves what is no longer trusted.
	Retirement time.Duration
	// Resync is how often a replica looks although no watch told it to, default 1
	// minute.
	Resync time.Duration
}

func (t Timing) withDefaults() Timing {
	for _, f := range []struct {
		field    *time.Duration
		standard time.Duration
	}{
		{&t.Life, 90 * day}, {&t.RenewBefore, 30 * day}, {&t.Propagation, 10 * time.Minute},
		{&t.Retirement, time.Hour}, {&t.Resync, time.Minute},
	} {
		if *f.field <= 0 {
			*f.field = f.standard
		}
	}
	return t
}

const day = 24 * time.Hour

// Action is one step of a rotation. Each is one write, and none depends on its
// maker's memory.
type Action string

// The actions, in the order in which a rotation takes them.
const (
	// Wait: nothing is to be done now.
	Wait Action = "wait"
	// Restore puts the certificate that this replica serves back into a Secret that
	// has lost it.
	Restore Action = "restore"
	// Generate puts a new certificate into the Secret; nobody serves it yet, unless
	// there is no other.
	Generate Action = "generate"
	// Publish puts all authorities into the MutatingWebhookConfiguration.
	Publish Action = "publish"
	// Announce notes since when they are there.
	Announce Action = "announce"
	// Switch makes the next certificate the current one.
	Switch Action = "switch"
	// Retire forgets the authorities of earlier certificates.
	Retire Action = "retire"
)

// Step is an action, and for [Wait] how long to.
type Step struct {
	Action Action
	After  time.Duration
}

// Next is the whole order of a rotation: from what is there, the one thing to
// do.
func Next(s State, o Observed, t Timing) Step {
	t = t.withDefaults()
	switch {
	case s.Current == nil && o.Serving.usable(o.Now) && !o.Serving.Equal(s.Next):
		return Step{Action: Restore}
	case s.Current == nil && s.Next == nil:
		return Step{Action: Generate}
	case !o.Trusted.Are(s.Authorities()):
		return Step{Action: Publish}
	case s.Next != nil && s.Announced.Version != o.Trusted.Version:
		return Step{Action: Announce}
	case s.Next != nil:
		return due(Switch, s.Announced.At.Add(t.Propagation), o.Now)
	case s.Rotate || !s.Current.covers(o.Names):
		return Step{Action: Generate}
	}
	step := due(Generate, s.Current.NotAfter().Add(-t.RenewBefore), o.Now)
	if step.Action == Wait && len(s.Previous) > 0 {
		if retire := due(Retire, s.Switched.Add(t.Retirement), o.Now); retire.After < step.After {
			return retire
		}
	}
	return step
}

func due(a Action, at, now time.Time) Step {
	if left := at.Sub(now); left > 0 {
		return Step{Action: Wait, After: left}
	}
	return Step{Action: a}
}

// After is the state once the action is taken. Fresh is the new pair, for
// Generate.
func (s State) After(a Action, o Observed, fresh *Pair) State {
	switch a {
	case Restore:
		s.Current, s.Switched = o.Serving, o.Now
		s.Previous = slices.DeleteFunc(o.Trusted.Authorities(o.Now), o.Serving.authority.Equal)
	case Generate:
		s.Rotate = false
		if s.Current == nil {
			s.Previous = o.Trusted.Authorities(o.Now)
		}
		if s.Current == nil && len(s.Previous) == 0 {
			// The API server trusts nobody, so nobody can be in its service.
			s.Current, s.Switched = fresh, o.Now
			break
		}
		s.Next, s.Announced = fresh, Announcement{}
	case Announce:
		s.Announced = Announcement{Version: o.Trusted.Version, At: o.Now}
	case Switch:
		if s.Current != nil {
			s.Previous = append(slices.Clone(s.Previous), s.Current.authority)
		}
		s.Current, s.Next, s.Announced, s.Switched = s.Next, nil, Announcement{}, o.Now
	case Retire:
		s.Previous = nil
	}
	return s
}

// Serve is the pair that a replica is to serve: the state's, unless the API
// server trusts only what the replica has already.
func (s State) Serve(o Observed) *Pair {
	pair := s.Current
	if pair == nil {
		pair = s.Next
	}
	if pair == nil || o.Serving.usable(o.Now) && o.Trusted.Cover(o.Serving) && !o.Trusted.Cover(pair) {
		return o.Serving
	}
	return pair
}

// Authorities are what API servers are to trust in this state, each once.
func (s State) Authorities() []*x509.Certificate {
	var all []*x509.Certificate
	for _, p := range []*Pair{s.Current, s.Next} {
		if p != nil {
			all = append(all, p.authority)
		}
	}
	return distinct(append(all, s.Previous...))
}

// Name is the state in the metric: none, stable, announcing or retiring.
func (s State) Name() string {
	switch {
	case s.Next != nil:
		return "announcing"
	case s.Current == nil:
		return "none"
	case len(s.Previous) > 0:
		return "retiring"
	}
	return "stable"
}

// Bundles are what the entries of the MutatingWebhookConfiguration that call our
// Service trust.
type Bundles struct {
	// Version of the configuration, which changes with each change of its entries.
	Version string
	// Entries has the bundle of each entry, PEM.
	Entries [][]byte
}

// Are reports whether each entry trusts exactly these authorities.
func (b Bundles) Are(authorities []*x509.Certificate) bool {
	for _, entry := range b.Entries {
		if !isBundle(entry, authorities) {
			return false
		}
	}
	return len(b.Entries) > 0
}

// Cover reports whether each entry trusts the pair.
func (b Bundles) Cover(p *Pair) bool {
	for _, entry := range b.Entries {
		if p == nil || !contains(parseBundle(entry), p.authority) {
			return false
		}
	}
	return len(b.Entries) > 0
}

// Authorities are all that any entry trusts and that are not past their time.
func (b Bundles) Authorities(now time.Time) []*x509.Certificate {
	var all []*x509.Certificate
	for _, entry := range b.Entries {
		all = append(all, parseBundle(entry)...)
	}
	return slices.DeleteFunc(distinct(all), func(c *x509.Certificate) bool { return now.After(c.NotAfter) })
}

// isBundle compares as sets: order and comments do not matter, and whatever is
// no certificate makes a difference.
func isBundle(data []byte, authorities []*x509.Certificate) bool {
	have := distinct(parseBundle(data))
	if len(have) != len(authorities) {
		return false
	}
	for _, c := range authorities {
		if !contains(have, c) {
			return false
		}
	}
	return true
}

// parseBundle leaves out what is no certificate.
func parseBundle(data []byte) (certificates []*x509.Certificate) {
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return certificates
		}
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			certificates = append(certificates, c)
		}
	}
}

func encodeBundle(certificates []*x509.Certificate) []byte {
	var out bytes.Buffer
	for _, c := range certificates {
		out.Write(encodePEM("CERTIFICATE", c.Raw))
	}
	return out.Bytes()
}

func distinct(certificates []*x509.Certificate) (all []*x509.Certificate) {
	for _, c := range certificates {
		if !contains(all, c) {
			all = append(all, c)
		}
	}
	return all
}

func contains(certificates []*x509.Certificate, c *x509.Certificate) bool {
	return slices.ContainsFunc(certificates, c.Equal)
}
