// Package terraform writes Terraform configurations. They are for teams that do not allow a
// controller to write IAM, or that manage the central part with the rest of their infrastructure.
// Terraform and OpenTofu both read them.
//
// It decides nothing: documents, names and tags come from a [plan.Plan], so people review
// exactly what `ampbridge sync` would create. [Central] and [Roles] are pure
// and return formatted text. [PrintRoles] reads the policy and the cluster for `ampbridge
// plan -o terraform`.
//
// A configuration is for one account, has no provider block, and can be a root module or
// a part of one. Two rules keep the difference to the next version small. Addresses are
// made from names and never from positions. A list that grows with the policy has one entry
// per line, even if it has only one entry.
package terraform
