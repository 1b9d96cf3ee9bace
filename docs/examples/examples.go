// Package examples holds the examples of the documentation, so that the program can show
// what it does without a cluster: a policy, a pod, and a Prometheus configuration.
package examples

import _ "embed" // the files

// Policy is a policy of two destinations.
//
//go:embed policy.yaml
var Policy []byte

// Pod is a Prometheus pod.
//
//go:embed pod.yaml
var Pod []byte

// Configuration is a Prometheus configuration.
//
//go:embed prometheus.yml
var Configuration []byte
