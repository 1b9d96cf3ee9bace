// Builds the shell that the tests put into images: see ../README.md.
module github.com/ampbridge/ampbridge/test/tools/gosh

go 1.26.0

tool mvdan.cc/sh/v3/cmd/gosh

require (
	golang.org/x/sys v0.47.0 // indirect
	golang.org/x/term v0.45.0 // indirect
	mvdan.cc/sh/v3 v3.14.1 // indirect
)
