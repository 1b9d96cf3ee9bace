// Package image holds the container image to what docs/image.md says of it: two
// static programs and nothing else, no user but 65532, the same bytes from
// wherever the same commit is built, and a complete bill of materials.
//
// It runs make image with buildah, so it is built with the tag e2e alone.
package image
