// Package publish is what a cluster's issuer publishes, so that AWS can verify
// its tokens: a discovery document and a set of public keys. For clusters whose
// API server the world cannot reach, somebody publishes both elsewhere; this
// package says what that is, in particular while a signing key is rotated.
//
// It is pure, as all of package policy is: no clock, no I/O. Its rules:
//
//   - Only public keys are published. A key set with anything else in it is
//     refused as a whole, because it was not meant for the world.
//   - A key that was published stays, until it has been gone from the cluster for
//     a period that outlasts every token it signed; and even then it goes only
//     when that is asked for.
//   - A key id means one key, for good.
//   - A place is one issuer's.
package publish
