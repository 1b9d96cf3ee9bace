//go:build !fuzz

package promload

// So that kubernetes_sd_configs load. Without it the fuzzer makes ten times as
// many executions: what it measures grows with all that is linked.
import _ "github.com/prometheus/prometheus/discovery/kubernetes"
