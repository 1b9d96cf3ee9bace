// Package check says whether the chain from a cluster's Prometheus to its
// workspace holds, link by link, and what to do about the link that does not.
//
// It is pure: a program observes the cluster and AWS, and gives what it found to
// the judgements of this package ([CheckIssuer], [Claims], [Keys], [Provider], [Trust],
// [Permission], …). Each makes one [Finding]: a [Check], a [State], what there is
// to say, and a [Fix]. [Runner] puts findings in the chain's order and knows
// which links cannot be looked at because an earlier one is broken, so that
// exactly the broken link is named.
//
// A [Report] is printed by [Report.Text], [Report.JSON] and [Report.HTML]. No
// finding ever holds a token, a key or the credentials of a session.
package check
