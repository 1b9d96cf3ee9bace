// Package terraform writes Terraform configurations, for teams that let no controller
// write IAM, or that keep the central part with the rest of their infrastructure.
// Terraform and OpenTofu read them alike.
//
// It decides nothing: documents, names and tags are those of a [plan.Plan], so what is
// reviewed here is what `ampbridge sync` would have made. [Central] and [Roles] are pure
// and return formatted text. [PrintRoles] reads the policy and the cluster for `ampbridge
// plan -o terraform`.
//
// A configuration is for one account, has no provider block, and can be a root module or
// a part of one. Two rules keep the difference to the next version small: addresses are
// made of names, never of positions, and a list that grows with the policy has one entry
// per line, even if it has one entry.
package terraform
