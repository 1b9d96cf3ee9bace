// Package awscli checks with AWS's own command line, which nobody here wrote,
// that the double of AWS is no friend of ours alone: the command by which people
// try out a role, and the commands that `ampbridge bootstrap -o aws-cli` prints.
//
// Its tests carry the build tag e2e: the CLI is a package of the distribution's,
// and installing one takes root.
package awscli
