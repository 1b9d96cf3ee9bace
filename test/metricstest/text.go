package metricstest

import (
	"strconv"
	"strings"
)

// Value returns the value of a sample in Prometheus's text format. The sample is named as
// the text names it, with its labels. ok is false if there is none.
func Value(text, sample string) (value float64, ok bool) {
	for line := range strings.Lines(text) {
		if number, found := strings.CutPrefix(line, sample+" "); found {
			value, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
			return value, err == nil
		}
	}
	return 0, false
}
