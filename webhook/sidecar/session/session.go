// Package session gets sessions from STS with the pod's own token. A session holds the credentials
// of one destination and their expiry. The package writes sessions as profiles of an AWS
// credentials file, which Prometheus reads.
//
// So Prometheus does not call STS. If it did and got no credentials while it applies its
// configuration, it would exit. [Client] makes one attempt with a time limit, and its caller
// decides when to try again. [Store] keeps the sessions in a memory volume that survives the
// sidecar's container.
package session

import (
	"crypto/rand"
	"regexp"
	"time"
)

// Session is a set of temporary credentials. The zero value means none.
type Session struct {
	AccessKeyID     string
	SecretAccessKey string
	SessionToken    string
	// Obtained and Expires are times of this machine's clock.
	Obtained time.Time
	Expires  time.Time
}

// Life returns the session's duration.
func (s Session) Life() time.Duration { return s.Expires.Sub(s.Obtained) }

// maxMargin is the longest time before its end when a session already counts as expired.
const maxMargin = 30 * time.Second

// Valid reports whether requests can be signed with the session at that time,
// with enough time left to remove the block before they fail.
func (s Session) Valid(at time.Time) bool {
	return s.AccessKeyID != "" && at.Before(s.Expires.Add(-min(maxMargin, s.Life()/10)))
}

// Renewal returns when to get the next session: after a third of this one's life, so
// that an outage of STS for the other two thirds has no effect. The result varies by
// up to a tenth, so that pods do not all renew at the same time.
func (s Session) Renewal() time.Time {
	return s.Obtained.Add(spread(s.Life()/3, 0.1))
}

const (
	firstPause = 250 * time.Millisecond
	maxPause   = time.Minute
)

// Pause returns how long to wait after that many failed attempts in a row. It begins with a
// quarter of a second, because a starting pod waits for its session and
// IAM may be seconds behind, and ends with a minute. It is at most a tenth
// of the life of the current session, if there is one.
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

// spread returns d, changed at random by up to a part of it.
func spread(d time.Duration, part float64) time.Duration {
	var dice [1]byte
	_, _ = rand.Read(dice[:]) // never fails, as documented
	return time.Duration(float64(d) * (1 - part + 2*part*float64(dice[0])/255))
}

// maxName is the limit of STS for RoleSessionName.
const maxName = 64

var illegal = regexp.MustCompile(`[^\w+=,.@-]`)

// Name returns a pod's role session name, which CloudTrail shows: cluster,
// namespace and pod, in the characters that STS allows. If it is too long, the middle
// is left out, because replicas differ in the end of a pod's name.
func Name(cluster, namespace, pod string) string {
	name := illegal.ReplaceAllString(cluster+"/"+namespace+"/"+pod, "-")
	if len(name) <= maxName {
		return name
	}
	const head = 20
	return name[:head] + "-" + name[len(name)-(maxName-head-1):]
}
