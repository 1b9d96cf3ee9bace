// Package chart tests the Helm chart in charts/ampbridge against real things:
// Helm 3, which renders, and Helm 4, which installs and upgrades; the API schemas of
// each Kubernetes release that the chart supports; package policy; package
// webhook/registration; and a real control plane.
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
