// Package image holds the container image to what docs/reference/image.md says of it: two
// static programs and nothing else, no user but 65532, the same bytes from
// wherever the same commit is built, and a complete bill of materials.
//
// What needs buildah is built with the tag e2e alone. That `docker build .` has
// everything it needs is tested without any engine: what .dockerignore lets
// through is compiled in an empty directory.
package image
