// Package awscli tests the AWS double with AWS's own command line, so that the
// double is not checked only by our code. It runs the commands that people use to
// try a role, and those that `ampbridge bootstrap -o aws-cli` prints.
//
// Its tests carry the build tag e2e: the CLI is a package of the distribution's,
// and installing one takes root.
package awscli
