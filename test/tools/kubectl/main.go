// Command kubectl is kubectl itself: this is what Kubernetes's own main does, out
// of the library that it is published as.
package main

import (
	"os"

	"k8s.io/component-base/cli"
	"k8s.io/kubectl/pkg/cmd"
)

func main() { os.Exit(cli.Run(cmd.NewDefaultKubectlCommand())) }
