// Package check says whether the chain from a cluster's Prometheus to its
// workspace holds, link by link, and what to do about the link that does not.
//
// It is pure: a program observes the cluster and AWS, and gives what it found to
// the judgements of this package ([Issuer], [Claims], [Keys], [Provider], [Trust],
// [Permission], …). Each makes one [Finding]: a [Link], a [State], what there is
// to say, and a [Mend]. [Examination] puts findings in the chain's order and knows
// which links cannot be looked at because an earlier one is broken, so that
// exactly the broken link is named.
//
// A [Ladder] is printed by [Ladder.Text], [Ladder.JSON] and [Ladder.HTML]. No
// finding ever holds a token, a key or the credentials of a session.
package check
