// Package bootstrap computes the central part of an AWS account, which is set up once: what must
// exist before sync can work, and what sync may not create itself. These are the
// workspaces, the cluster's OIDC provider, the permissions boundary, and sync's own role.
//
// [Desired] returns that part, [Compute] compares it with what exists, and [Script]
// writes it as AWS CLI commands; cmd/internal/terraform writes it too. All of them
// are pure functions. The rules are those of sync: things of other owners are not changed, a second
// run changes nothing, and the next run completes an interrupted one.
//
// A destination that needs a new workspace has an id in the policy that begins with
// "ws-new". This placeholder is used instead of the ARN until the workspace exists. Only
// bootstrap reads such a policy, with [policy.ParseDraft].
package bootstrap
