// Package snippets reads what `ampbridge config -o` prints for Alloy and for Grafana with
// code of theirs: Alloy's own language, and, with the build tag collectors, the settings
// of data sources in Grafana's SDK for plugins, which takes longer to compile. Package
// promload does the same for Prometheus and its operator, test/chart for the operator's
// definitions, and test/e2e/collectors for vmagent and the OpenTelemetry Collector.
//
// It is a module of its own, because of its dependencies, which the product must not
// have. There is nothing in it but tests:
//
//	cd test/snippets && go test -tags collectors ./...
package snippets
