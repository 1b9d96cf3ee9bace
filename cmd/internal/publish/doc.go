// Package publish publishes what AWS needs to verify a cluster's tokens: a discovery
// document and a set of public keys. It is for clusters whose API server AWS cannot
// reach.
//
// [Run] reads the cluster or files, and writes to an S3 bucket or a folder. [Publish]
// decides what to write, in particular while a signing key is rotated. It is pure: it
// has no clock and does no I/O. Its rules:
//
//   - Only public keys are published. A key set that holds anything else is refused as
//     a whole, because it was not meant to be public.
//   - A published key stays until it has been gone from the cluster for longer than any
//     token that it signed can live, and until somebody asks to prune it.
//   - A key id always means the same key.
//   - A place belongs to one issuer.
package publish
