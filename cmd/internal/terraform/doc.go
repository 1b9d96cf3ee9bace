// Package terraform writes Terraform configurations, for teams that let no
// controller write IAM, or that keep the central part beside the rest of their
// infrastructure. Terraform and OpenTofu read them alike.
//
// It decides nothing: documents, names and tags are those of a [plan.Plan], so
// that what is reviewed here is what `ampbridge sync` would have made. Like all
// of package policy it is pure; what it returns is formatted.
//
// A configuration is for one account, has no provider block, and can be a root
// module or a part of one. Two rules make the next version of it a small diff:
// addresses are made of names, never of positions, and what grows with the
// policy stands one to a line even where there is one of it.
package terraform
