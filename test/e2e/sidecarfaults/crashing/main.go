// Command crashing replaces a sidecar that ends at every start.
package main

import "os"

func main() { os.Exit(1) }
