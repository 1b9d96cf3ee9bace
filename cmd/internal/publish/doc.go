// Package publish publishes what AWS needs to verify a cluster's tokens: a discovery
// document and a set of public keys. It is for clusters with an API server that AWS cannot
// reach.
//
// [Run] reads the cluster or files, and writes to an S3 bucket or a folder. [Publish]
// computes what to write, in particular while a signing key is rotated. It is pure: it
// has no clock and does no I/O. Its rules:
//
//   - Only public keys are published. A key set with anything else is refused completely,
//     because it was not meant to be public.
//   - A published key stays until no token that it signed can be valid any more, and until the
//     user asks to prune it.
//   - A key id always means the same key.
//   - A place belongs to one issuer.
package publish
