// Package install tests all of ampbridge on a real node, as users install it. It installs image and chart
// with helm, as `make release` packages them. It uses the real prometheus-operator, and a Prometheus like
// that of the community's chart, in a namespace that enforces the restricted pod security standard. AWS's
// double has AWS's own host names. The test prints each step of the chain when it is proven.
//
// It needs root and some Debian packages (see package node), so it is built only with the tag e2e:
//
//	make e2e
package install
