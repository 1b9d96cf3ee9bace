// Package examples holds the examples of the documentation, so that the program can show
// what it does without a cluster: a policy, a pod, and a Prometheus configuration.
package examples

import _ "embed" // the files

//go:embed policy.yaml
var Policy []byte

//go:embed pod.yaml
var Pod []byte

//go:embed prometheus.yml
var Configuration []byte
