# ampbridge. `make help` lists what there is.

SHELL       := /bin/bash
.SHELLFLAGS := -o pipefail -ec
GO          ?= go
# Empty but on a tagged commit: what is not a release does not call itself one.
VERSION     ?= $(shell git describe --tags --exact-match 2>/dev/null)
LDFLAGS     := -s -w -X github.com/ampbridge/ampbridge/cmd/internal/version.release=$(VERSION)
# What the tests and the demo run beside ampbridge: built once, kept in the
# user's cache directory (test/tools).
TEST_TOOLS  := etcd kube-apiserver kube-controller-manager kube-scheduler prometheus prometheus-config-reloader
# And what the conformance test runs besides.
KIND_TOOLS  := prometheus-3.1 prometheus-2.42 prometheus-operator gosh
TOOLS       := $(GO) run ./test/tools/cmd

.DEFAULT_GOAL := help
.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## bin/ampbridge and bin/config-sidecar, static
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/ampbridge ./cmd/config-sidecar

.PHONY: demo
demo: ## the main job, end to end, narrated; STAY=1 keeps it running to look at
	@$(TOOLS) $(TEST_TOOLS) >/dev/null
	@$(GO) run ./test/demo $(if $(STAY),-stay)

.PHONY: test
test: ## every test that needs no root; PKG=./policy/... for some
	@$(TOOLS) $(TEST_TOOLS) $(KIND_TOOLS) >/dev/null
	@"$$($(TOOLS) -q gotestsum)" --format pkgname --hide-summary skipped -- -timeout 20m $(or $(PKG),./...)
	$(if $(PKG),,@gotestsum="$$($(TOOLS) -q gotestsum)" && cd test/promload && "$$gotestsum" --format pkgname -- -timeout 20m ./...)

.PHONY: safety
safety: ## the tables of docs/reliability.md: the safety matrix and the sidecar's own faults
	@$(TOOLS) $(TEST_TOOLS) prometheus-3.1 gosh >/dev/null
	@$(GO) test -count=1 -v ./test/e2e/matrix ./test/e2e/sidecarfaults | grep -E '^ *\||^(---|ok|FAIL|panic)'

.PHONY: lint
lint: ## gofmt, go vet and golangci-lint
	@"$$($(TOOLS) -q golangci-lint)" run ./...

.PHONY: bench
bench: ## the figures of docs/performance.md
	@$(TOOLS) $(TEST_TOOLS) >/dev/null
	@$(GO) run ./test/bench
	@$(GO) test -run '^$$' -bench . -benchmem ./policy/... ./webhook/... ./sidecar/...

.PHONY: vuln
vuln: ## govulncheck, where its database can be reached
	$(GO) run golang.org/x/vuln/cmd/govulncheck@latest ./...

.PHONY: tools
tools: ## build what tests, demo and lint need, and print where it is
	@$(TOOLS) $(TEST_TOOLS) $(KIND_TOOLS) golangci-lint gotestsum
