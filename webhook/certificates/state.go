package certificates

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"time"
)

// State is the content of the Secret: everything that any replica needs to continue a rotation.
// Pairs that cannot be served are not in it.
type State struct {
	// Current is the pair that replicas serve. Without one they serve Next.
	Current *Pair
	// Next is the pair that they will serve when API servers know its authority.
	Next *Pair
	// Previous are authorities of certificates that some replica may still serve.
	Previous []*x509.Certificate
	// Announced records which configuration has all authorities, and since when.
	Announced Announcement
	// Switched is the time since when Current is served and Previous waits to be removed.
	Switched time.Time
	// Rotate is true if a person requests a new certificate.
	Rotate bool
}

// Announcement is a version of the MutatingWebhookConfiguration that trusts all
// authorities of the state. Another version may have lacked them for a
// moment, so the wait starts again.
type Announcement struct {
	Version string
	At      time.Time
}

// Observed is what a replica reads before it decides.
type Observed struct {
	Now time.Time
	// Names are the names that the certificate must be valid for.
	Names []string
	// Serving is the pair that the replica serves; nil if there is none yet.
	Serving *Pair
	// Trusted are the authorities in the API server's configuration.
	Trusted Bundles
}

// Timing holds the times of a rotation. Zero values mean the defaults.
type Timing struct {
	// Life is the life of a certificate and its authority; 90 days by default.
	Life time.Duration
	// RenewBefore is how long before its end a certificate is replaced; 30 days by default. That
	// is enough even if the person who reads the alerts is on holiday.
	RenewBefore time.Duration
	// Propagation is how long all authorities are in the configuration before the
	// new certificate is served; 10 minutes by default. API servers usually see a change
	// within a second. The rest is for watches that hang and clocks that differ.
	Propagation time.Duration
	// Retirement is how long the old authority stays after that; 1 hour by default.
	// Replicas watch the change too. A replica that has seen nothing for half of this
	// time is not ready, so that none serves a certificate that is not trusted any more.
	Retirement time.Duration
	// Resync is how often a replica reads the objects without a change; 1 minute by default.
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

// Action is one step of a rotation. Each is one write, and needs nothing that only one replica
// remembers.
type Action string

// The actions, in the order in which a rotation takes them.
const (
	// Wait: there is nothing to do now.
	Wait Action = "wait"
	// Restore puts the certificate that this replica serves back into a Secret that
	// has lost it.
	Restore Action = "restore"
	// Generate puts a new certificate into the Secret. It is not served yet, unless
	// there is no other.
	Generate Action = "generate"
	// Publish puts all authorities into the MutatingWebhookConfiguration.
	Publish Action = "publish"
	// Announce records since when they are there.
	Announce Action = "announce"
	// Switch makes the next certificate the current one.
	Switch Action = "switch"
	// Retire removes the authorities of earlier certificates.
	Retire Action = "retire"
)

// Step is an action, and for [Wait] the time to wait.
type Step struct {
	Action Action
	After  time.Duration
}

// Next is the whole procedure of a rotation. From the current state it returns the one next
// step.
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

// After returns the state after the action. Fresh is the new pair, for
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
			// The API server trusts no authority yet, so it cannot be using a certificate.
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

// Serve returns the pair that a replica must serve: the state's, unless the API
// server trusts only the pair that the replica serves already.
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

// Authorities returns the authorities that API servers must trust in this state, each once.
func (s State) Authorities() []*x509.Certificate {
	var all []*x509.Certificate
	for _, p := range []*Pair{s.Current, s.Next} {
		if p != nil {
			all = append(all, p.authority)
		}
	}
	return distinct(append(all, s.Previous...))
}

// Name returns the state's name for the metric: none, stable, announcing or retiring.
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

// Bundles are the CA bundles in those entries of the MutatingWebhookConfiguration that call our
// Service.
type Bundles struct {
	// Version is the configuration's version, which changes with each change of its entries.
	Version string
	// Entries has the PEM bundle of each entry.
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

// Authorities returns all authorities in any entry that have not expired.
func (b Bundles) Authorities(now time.Time) []*x509.Certificate {
	var all []*x509.Certificate
	for _, entry := range b.Entries {
		all = append(all, parseBundle(entry)...)
	}
	return slices.DeleteFunc(distinct(all), func(c *x509.Certificate) bool { return now.After(c.NotAfter) })
}

// isBundle reports whether data has exactly these authorities. Order and comments do not matter.
// Anything that is not a certificate makes the result false.
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

// parseBundle returns the certificates in data and skips everything else.
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
