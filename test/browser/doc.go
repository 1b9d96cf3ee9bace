// Package browser opens pages of `ampbridge doctor -o html` in a real browser, wide
// and as narrow as a phone. The pages are golden files of
// cmd/internal/doctor/report. The test needs Chromium (/usr/bin/chromium, or the path
// in $CHROMIUM) and the build tag e2e:
//
//	go test -tags e2e ./...
//	go test -tags e2e ./... -screenshots DIR   # keeps pictures
package browser
