// Package browser opens the page of `ampbridge doctor -o html` in a real browser,
// wide and as narrow as a phone. Its test needs Chromium (/usr/bin/chromium, or
// what $CHROMIUM names) and the build tag e2e:
//
//	go test -tags e2e ./...
//	go test -tags e2e ./... -screenshots DIR   # and looks are kept
package browser
