// Package awscli tests the AWS double with AWS's own command line, so that not only ampbridge's code checks
// the double. It runs the commands with which users try a role, and the commands that `ampbridge bootstrap -o
// aws-cli` prints.
//
// Its tests have the build tag e2e, because the CLI is a package of the distribution and its installation
// needs root.
package awscli
