// Package metricstest reads Prometheus metrics in tests of what records them.
package metricstest

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ampbridge/ampbridge/test/testkit"
)

// Sum returns the sum of a metric's gauges and counters that have a label with this
// value, or of all of them if the value is empty.
func Sum(t testing.TB, from prometheus.Gatherer, name, value string) (sum float64) {
	t.Helper()
	families, err := from.Gather()
	testkit.Must(t, err)
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			wanted := value == ""
			for _, l := range m.GetLabel() {
				wanted = wanted || l.GetValue() == value
			}
			if wanted {
				sum += m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	return sum
}
