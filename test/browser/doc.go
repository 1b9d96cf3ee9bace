// Package browser opens the project's pages in a real browser, from 390 to 1,920 px, in
// light and in dark: those of `ampbridge doctor -o html`, and the status page of sync. It
// measures the layout and the contrast of every text. The tests of cmd/internal/page and
// cmd/internal/doctor/report write the pages. The test needs Chromium (/usr/bin/chromium,
// or the path in $CHROMIUM) and the build tag e2e:
//
//	go test -tags e2e ./...
//	go test -tags e2e ./... -screenshots DIR   # keeps pictures
package browser
