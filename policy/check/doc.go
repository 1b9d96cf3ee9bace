// Package check judges whether samples can flow from a cluster's Prometheus to
// its workspace. It reports what failed and how to fix it.
//
// The package is pure. A program observes the cluster and AWS, and passes what it
// found to the judgements of this package ([Issuer], [Token], [Keys], [Provider],
// [Trust], [Permission], …). Each judgement returns one [Finding]: the [ID] of a
// check, a [Status], a message and a [Fix].
//
// [Runner] collects the findings. It skips a check if a check that it depends on
// failed, so that a report names only the cause. [Runner.Report] returns the
// findings in the order of [All].
//
// The package cmd/internal/doctor/report prints a [Report] as text, JSON and
// HTML. A finding never contains a token, a key or the credentials of a session.
package check
