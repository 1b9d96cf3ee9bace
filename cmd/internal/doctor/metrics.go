package doctor

import (
	"strings"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/ampbridge/ampbridge/policy/check"
)

// parseMetrics parses Prometheus's text format. It returns counters, gauges and
// untyped metrics, because no check reads a histogram or a summary.
func parseMetrics(text string) (check.Metrics, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		return nil, err
	}
	metrics := check.Metrics{}
	for name, family := range families {
		for _, m := range family.GetMetric() {
			value, ok := valueOf(m)
			if !ok {
				continue
			}
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			metrics[name] = append(metrics[name], check.Sample{Labels: labels, Value: value})
		}
	}
	return metrics, nil
}

// valueOf returns the value of a metric; ok is false for a histogram or a summary.
func valueOf(m *dto.Metric) (value float64, ok bool) {
	switch {
	case m.Counter != nil:
		return m.Counter.GetValue(), true
	case m.Gauge != nil:
		return m.Gauge.GetValue(), true
	case m.Untyped != nil:
		return m.Untyped.GetValue(), true
	}
	return 0, false
}
