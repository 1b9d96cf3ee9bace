// Package bootstrap decides the one-time, central part of an AWS account: what must
// exist before sync can work, and what sync may not make itself. That is the
// workspaces, the cluster's OIDC provider, the permissions boundary, and the role of
// sync.
//
// [Desired] returns that part, [Compute] compares it with what exists, and [Script]
// writes it as AWS CLI commands; cmd/internal/terraform writes it too. All of them
// are pure. The rules are those of sync: what others made is not changed, a second
// run changes nothing, and the next run completes one that was interrupted.
//
// A destination that needs a new workspace has an id in the policy that begins with
// "ws-new". This placeholder stands for the ARN until the workspace exists. Only
// bootstrap reads such a policy, with [policy.ParseDraft].
package bootstrap
