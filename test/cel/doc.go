// Package cel proves that the API server of Kubernetes 1.30, the oldest release that
// the chart is for, compiles every CEL expression of the chart and of package
// webhook/registration, and what the chart's admission policies deny. It runs the API
// server's own compiler and evaluator, in the test's process.
//
// It is a module of its own, because k8s.io/apiserver brings along dependencies that
// the product must not have. There is nothing in it but tests:
//
//	cd test/cel && go test ./...
package cel
