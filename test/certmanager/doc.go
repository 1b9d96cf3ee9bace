// Package certmanager proves the webhook's second way to have a certificate:
// cert-manager's own controllers and its cainjector, at work on a real API
// server, with the objects that the chart makes.
//
// It is a module of its own, because cert-manager brings along hundreds of
// dependencies that the product must not have. There is nothing in it but tests:
//
//	cd test/certmanager && go test ./...
package certmanager
