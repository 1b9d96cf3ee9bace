// Package promload loads rendered configurations with Prometheus's own loader. It
// checks that only the blocks at the end of remote_write differ.
//
// It is a module of its own, because Prometheus's loader brings along hundreds
// of dependencies that the product must not have. There is nothing in it but
// tests:
//
//	cd test/promload && go test ./...                 # 100,000 generated configurations
//	go test -run TestLoads -cases 1 -seed 4711 -v     # one of them, to look at
//	go test -tags fuzz -fuzz FuzzLoads                # and whatever a fuzzer makes of them
//
// TestBlocksOfEachVersion loads blocks in the loaders of older versions too. Each is a
// program of a module of its own under versions, because their dependencies exclude each
// other.
package promload
