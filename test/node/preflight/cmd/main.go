// Command preflight reports what this machine lacks for make e2e.
//
//	preflight            names it, with the command that installs it; status 1
//	preflight packages   prints the Debian packages alone, for a script to install
package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/ampbridge/ampbridge/test/node/preflight"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == "packages" {
		fmt.Println(strings.Join(preflight.Find(preflight.Install).Packages, " "))
		return
	}
	if err := preflight.Check(preflight.Install); err != nil {
		fmt.Fprintf(os.Stderr, "make e2e cannot run here:\n%s\n", err)
		os.Exit(1)
	}
}
