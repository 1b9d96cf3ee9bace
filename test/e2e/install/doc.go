// Package install proves the whole of ampbridge on a real node, as people
// install it: image and chart as `make release` packages them, by helm, the real
// prometheus-operator and a Prometheus in the shape of the community's chart in a
// namespace that enforces the restricted pod security standard, and AWS's double
// behind AWS's own host names. It prints each link of the chain once it holds.
//
// It needs root and some Debian packages (see package node), so it is built
// with the tag e2e alone:
//
//	make e2e
package install
