// Package session gets sessions (the credentials of one destination, with their
// expiry) from STS with the pod's own token. It writes them as profiles of an AWS
// credentials file, which Prometheus reads.
//
// So Prometheus need not call STS: it exits if it gets no credentials while it applies
// its configuration.
// [Client] makes one bounded attempt, and its caller decides when to try again. [Store]
// keeps the sessions in a memory volume that outlives the sidecar's container.
package session

import (
	"crypto/rand"
	"regexp"
	"time"
)

// Session is temporary credentials. The zero value is none.
type Session struct {
	AccessKeyID     string
	SecretAccessKey string
	SessionToken    string
	// Obtained and Expires are by this machine's clock.
	Obtained time.Time
	Expires  time.Time
}

// Life is how long the session lasts in all.
func (s Session) Life() time.Duration { return s.Expires.Sub(s.Obtained) }

// maxMargin bounds how long before its end a session counts as over.
const maxMargin = 30 * time.Second

// Valid reports whether requests can be signed with the session at that time,
// and for long enough to take the block out before they fail.
func (s Session) Valid(at time.Time) bool {
	return s.AccessKeyID != "" && at.Before(s.Expires.Add(-min(maxMargin, s.Life()/10)))
}

// Renewal is when to get the next session: at a third of this one's life, so
// that an outage of STS for the other two thirds goes unnoticed. It differs by
// up to a tenth from call to call, so that pods do not all renew at once.
func (s Session) Renewal() time.Time {
	return s.Obtained.Add(spread(s.Life()/3, 0.1))
}

const (
	firstPause = 250 * time.Millisecond
	maxPause   = time.Minute
)

// Pause is how long to wait after so many failed attempts in a row: a quarter
// of a second at first, because a pod that starts waits for its session and
// IAM may be seconds behind, a minute in the end. It is never more than a tenth
// of the life of the session that is being renewed, where there is one.
func Pause(failures int, current Session) time.Duration {
	pause := maxPause
	if failures < 9 {
		pause = min(maxPause, firstPause<<max(failures-1, 0))
	}
	if life := current.Life(); life > 0 {
		pause = min(pause, max(life/10, firstPause))
	}
	return spread(pause, 0.2)
}

// spread is d, more or less by up to a part of it.
func spread(d time.Duration, part float64) time.Duration {
	var dice [1]byte
	_, _ = rand.Read(dice[:]) // documented never to fail
	return time.Duration(float64(d) * (1 - part + 2*part*float64(dice[0])/255))
}

// maxName is STS's limit for RoleSessionName.
const maxName = 64

var illegal = regexp.MustCompile(`[^\w+=,.@-]`)

// Name is the role session name of a pod, which CloudTrail shows: cluster,
// namespace and pod, in the characters that STS allows. Of a long one the middle
// is left out: the end of a pod's name is what tells replicas apart.
func Name(cluster, namespace, pod string) string {
	name := illegal.ReplaceAllString(cluster+"/"+namespace+"/"+pod, "-")
	if len(name) <= maxName {
		return name
	}
	const head = 20
	return name[:head] + "-" + name[len(name)-(maxName-head-1):]
}
