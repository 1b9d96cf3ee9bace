package sidecar

import (
	"os"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// throttling reports how long the kernel has stopped the container because of
// its CPU limit, since a throttled relay delays Prometheus's writes. Without cgroups
// it reports nothing.
type throttling struct{}

var (
	descThrottled = prometheus.NewDesc(
		"ampbridge_cpu_throttled_seconds_total", "Time for which the sidecar's container was kept from running by its CPU limit.", nil, nil,
	)
	descThrottledPeriods = prometheus.NewDesc(
		"ampbridge_cpu_throttled_periods_total", "Periods in which that happened.", nil, nil,
	)
)

// Describe implements [prometheus.Collector].
func (throttling) Describe(out chan<- *prometheus.Desc) {
	out <- descThrottled
	out <- descThrottledPeriods
}

// Collect implements [prometheus.Collector].
func (throttling) Collect(out chan<- prometheus.Metric) {
	// Version 2 of cgroups, then version 1, which counts nanoseconds.
	for _, f := range []struct {
		file, field string
		perSecond   float64
	}{{"/sys/fs/cgroup/cpu.stat", "throttled_usec", 1e6}, {"/sys/fs/cgroup/cpu/cpu.stat", "throttled_time", 1e9}} {
		text, err := os.ReadFile(f.file)
		if err != nil {
			continue
		}
		periods, time, ok := parseThrottling(string(text), f.field)
		if !ok {
			continue
		}
		out <- prometheus.MustNewConstMetric(descThrottled, prometheus.CounterValue, time/f.perSecond)
		out <- prometheus.MustNewConstMetric(descThrottledPeriods, prometheus.CounterValue, periods)
		return
	}
}

// parseThrottling parses cpu.stat. Its lines consist of a name and a number
// (https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu-interface-files).
func parseThrottling(text, timeField string) (periods, time float64, ok bool) {
	fields := map[string]float64{}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if number, err := strconv.ParseFloat(value, 64); err == nil {
			fields[name] = number
		}
	}
	time, ok = fields[timeField]
	return fields["nr_throttled"], time, ok
}
