// Package chart tests the Helm chart in charts/ampbridge against real things:
// the helm program, the API schemas of each Kubernetes release that the chart
// supports, package policy, package webhook/registration, and a real control
// plane into which helm installs.
//
// There is nothing in it but tests. Those with a golden file, and the chart's
// own README.md and files/can-be-prometheus.cel, which are made from other
// sources, take a flag:
//
//	go test ./test/chart -update
//
// The schemas of Kubernetes, prometheus-operator and cert-manager come out of
// their Go modules: the first run downloads some 300 MB into the module cache.
package chart
