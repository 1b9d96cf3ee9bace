// Package bootstrap is the one-time, central part of an AWS account: what has to
// be there before sync can work, and what sync may not make for itself. It is
// the workspaces, the cluster's OIDC provider, the permissions boundary, and the
// role that sync itself acts as.
//
// [Desired] says what that is, [Make] compares it with what is there, and
// [Script] writes it as AWS CLI commands; package terraform writes it too. All
// of them are pure. The rules are those of sync: what others made is not
// changed, a second run changes nothing, and a run that was cut off is completed
// by the next.
//
// A destination whose workspace is yet to be made has an id that begins with
// "ws-new" in the policy. Its ARN is known once the workspace is made; until
// then the placeholder stands for it. Bootstrap alone reads such a policy, by
// [policy.ParseDraft].
package bootstrap
