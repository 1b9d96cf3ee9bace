# `make help` lists the targets.

SHELL       := /bin/bash
.SHELLFLAGS := -o pipefail -ec
GO          ?= go
# Empty unless the commit has a tag, so that only releases have a release's version.
VERSION     ?= $(shell git describe --tags --exact-match 2>/dev/null)
# The commit, and whether there are uncommitted changes.
REVISION    ?= $(shell git describe --always --dirty --abbrev=40 --exclude='*' 2>/dev/null)
VERSION_PKG := github.com/ampbridge/ampbridge/cmd/internal/cli
LDFLAGS      = -s -w -X $(VERSION_PKG).release=$(VERSION) -X $(VERSION_PKG).revision=$(REVISION) -X main.release=$(VERSION)
# Without Git's stamp and without paths, the same commit always gives the same bytes, in an image too.
GOBUILD     := CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)'
COMMA       := ,
# The programs that the tests and the demo run. They are built once and kept in the
# user's cache directory (test/tools).
TEST_TOOLS  := etcd kube-apiserver kube-controller-manager kube-scheduler prometheus prometheus-config-reloader
# More programs for the other tests: several versions of Prometheus, tools for the chart, Terraform.
SUITE_TOOLS := prometheus-3.1 prometheus-2.42 prometheus-2.22 prometheus-operator gosh helm helm4 tofu tfprovider promtool
# More programs for a node and the install test.
NODE_TOOLS  := kubelet kube-proxy kubectl coredns helm helm4 prometheus-operator release registry
TOOLS       := $(GO) run ./test/tools/cmd
# Tests with heavy dependencies are separate modules.
MODULES     := test/cel test/certmanager test/promload test/snippets test/tools/release

.DEFAULT_GOAL := help
.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## bin/ampbridge and bin/config-sidecar, static
	$(GOBUILD) -o bin/ ./cmd/ampbridge ./cmd/config-sidecar

IMAGE       ?= ghcr.io/ampbridge/ampbridge:$(or $(VERSION),dev)
ARCH        ?= $(shell $(GO) env GOARCH)
# The first one that answers, because the docker command often exists without its engine.
ENGINE      ?= $(firstword $(foreach e,docker podman buildah,$(shell $(e) info >/dev/null 2>&1 && echo $(e))))
# The commit's time is the time of everything in the image.
SOURCE_DATE_EPOCH ?= $(or $(shell git log -1 --format=%ct 2>/dev/null),0)
.PHONY: image
image: ## the container image, with docker, podman or buildah; ARCH=arm64, IMAGE=name:tag, ARCHIVE=file.tar
	@test -n "$(ENGINE)" || { echo "make image: neither docker, podman nor buildah answers: apt-get install -y buildah" >&2; exit 1; }
	GOOS=linux GOARCH=$(ARCH) $(GOBUILD) -o bin/linux-$(ARCH)/ ./cmd/ampbridge ./cmd/config-sidecar
ifeq ($(ENGINE),docker)
	SOURCE_DATE_EPOCH=$(SOURCE_DATE_EPOCH) docker buildx build --target prebuilt --platform linux/$(ARCH) --provenance=false \
	  --tag $(IMAGE) --output type=$(if $(ARCHIVE),oci$(COMMA)dest=$(ARCHIVE),docker)$(COMMA)rewrite-timestamp=true .
else
	$(ENGINE) build --target prebuilt --platform linux/$(ARCH) --build-arg TARGETARCH=$(ARCH) --timestamp $(SOURCE_DATE_EPOCH) --tag $(IMAGE) .
	$(if $(ARCHIVE),$(ENGINE) push $(IMAGE) oci-archive:$(ARCHIVE):$(IMAGE))
endif

.PHONY: push
push: image ## the image, built and pushed to its registry; IMAGE=name:tag
	$(ENGINE) push $(IMAGE)

# A complete release in DIST, without the push: docs/design/release.md. It has the chart's version unless VERSION is set.
DIST        ?= dist
PLATFORMS   ?= linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64 windows/arm64
# An SSH key of the publisher. Without one, a trial release is signed with a temporary key.
SIGNING_KEY ?=
SIGNER      ?= ampbridge-release
BUILDER     ?= https://github.com/ampbridge/ampbridge/blob/main/docs/design/release.md\#local-builder
REPOSITORY  ?= ghcr.io/ampbridge
.PHONY: release
release: VERSION := $(or $(VERSION),$(shell sed -n 's/^appVersion: *//p' charts/ampbridge/Chart.yaml))
release: IMAGE = $(REPOSITORY)/ampbridge:$(VERSION)
release: ## a signed release in dist/: image, chart, programs, bills of materials, provenance; VERSION=v0.1.0 SIGNING_KEY=file
	@export GO="$(GO)" DIST="$(DIST)" VERSION="$(VERSION)" REVISION="$(or $(REVISION),unknown)" PLATFORMS="$(PLATFORMS)" IMAGE="$(IMAGE)" \
	  SIGNING_KEY="$(SIGNING_KEY)" SIGNER="$(SIGNER)" BUILDER='$(BUILDER)' SOURCE_DATE_EPOCH="$(SOURCE_DATE_EPOCH)" LDFLAGS="$(LDFLAGS)"; \
	bash test/tools/release/release.sh "$$($(TOOLS) -q release)" "$$($(TOOLS) -q helm4)"

.PHONY: publish
publish: VERSION := $(or $(VERSION),$(shell sed -n 's/^appVersion: *//p' charts/ampbridge/Chart.yaml))
publish: ## pushes image and chart of dist/ to REPOSITORY, and prints the image's digest; after make release
	@"$$($(TOOLS) -q release)" push $(DIST)/ampbridge-$(VERSION:v%=%)-image.tar $(REPOSITORY)/ampbridge:$(VERSION)
	@"$$($(TOOLS) -q helm4)" push $(DIST)/ampbridge-$(VERSION:v%=%).tgz oci://$(REPOSITORY)/charts

NAMESPACE   ?= ampbridge-system
.PHONY: manifests
manifests: ## the chart as plain YAML, on standard output; VALUES=values.yaml, NAMESPACE=ampbridge-system
	@test -n "$(VALUES)" || { echo "make manifests: name your values: make manifests VALUES=values.yaml" >&2; exit 1; }
	@"$$($(TOOLS) -q helm4)" template ampbridge charts/ampbridge --namespace $(NAMESPACE) --no-hooks $(addprefix --values ,$(VALUES))

.PHONY: demo
demo: ## the whole product, end to end, with explanations; STAY=1 keeps it running
	@# With the flags of the product's programs, so that shared packages are compiled once.
	@CGO_ENABLED=0 $(GO) run -trimpath -buildvcs=false ./test/demo $(if $(STAY),-stay)

.PHONY: test
test: ## every test that needs no root; PKG=./policy/... for some
	@$(TOOLS) $(TEST_TOOLS) $(SUITE_TOOLS) >/dev/null
	@"$$($(TOOLS) -q gotestsum)" --format pkgname --hide-summary skipped -- -timeout 20m $(or $(PKG),./...)
	$(if $(PKG),,@gotestsum="$$($(TOOLS) -q gotestsum)"; for module in $(MODULES); do \
	  (cd $$module && "$$gotestsum" --format pkgname -- -timeout 20m ./...); done)

.PHONY: e2e
e2e: ## the image and the chart on a real node, the AWS CLI, a browser (root, Linux: docs/design/e2e.md)
	@$(GO) run ./test/node/preflight/cmd
	@$(TOOLS) $(TEST_TOOLS) $(NODE_TOOLS) >/dev/null
	@CGO_ENABLED=0 $(GO) test -tags e2e -count=1 -timeout 15m ./test/image
	@CGO_ENABLED=0 $(GO) test -tags e2e -count=1 -timeout 15m ./test/node
	@CGO_ENABLED=0 $(GO) test -tags e2e -count=1 -timeout 15m ./test/e2e/awscli
	@cd test/browser && $(GO) test -tags e2e -count=1 -timeout 15m ./...
	@CGO_ENABLED=0 $(GO) test -tags e2e -count=1 -timeout 30m -v ./test/e2e/install

# The number of pods of the safety matrix that run in parallel.
PODS        ?= 12
.PHONY: safety
safety: ## the tables of docs/design/reliability.md: the safety matrix and the sidecar's own faults
	@$(TOOLS) $(TEST_TOOLS) prometheus-3.1 prometheus-2.42 prometheus-2.22 gosh >/dev/null
	@$(GO) test -count=1 -v -timeout 2h ./test/e2e/matrix -all -pods $(PODS) | grep -E '^ *\||^ *[0-9]+ cells|^ *--- FAIL|^(---|ok|FAIL|panic)'
	@$(GO) test -count=1 -v ./test/e2e/sidecarfaults | grep -E '^ *\||^(---|ok|FAIL|panic)'

.PHONY: shapes
shapes: ## doctor on every healthy kind of pod, policy and issuer: nothing but pass
	@$(TOOLS) $(TEST_TOOLS) prometheus-3.1 prometheus-2.42 prometheus-2.22 gosh >/dev/null
	@$(GO) test -tags shapes -count=1 -v -timeout 30m -run 'TestShapes|TestIssuers' ./test/e2e/doctor ./test/e2e/kinds | grep -E '^ *--- |^(ok|FAIL|panic)'

.PHONY: collectors
collectors: ## programs other than Prometheus, in both modes, during outages of STS (the table of docs/design/reliability.md)
	@$(TOOLS) $(TEST_TOOLS) vmagent thanos otelcol >/dev/null
	@cd test/snippets && $(GO) test -tags collectors -count=1 -timeout 20m ./...
	@$(GO) test -tags collectors -count=1 -v -timeout 30m ./test/e2e/collectors | grep -E '^ *\||^ *[a-z]+_test.go|^ *--- FAIL|^(---|ok|FAIL|panic)'

.PHONY: docs
docs: ## writes the generated pages of docs/reference again, and the README's pictures
	@$(GO) test -count=1 ./cmd/internal/docs -update

.PHONY: lint
lint: ## gofmt, go vet and golangci-lint; actionlint for the workflows
	@"$$($(TOOLS) -q actionlint)"
	@lint="$$($(TOOLS) -q golangci-lint)"; "$$lint" run ./...; for module in $(MODULES) test/browser; do (cd $$module && "$$lint" run ./...); done

FUZZTIME    ?= 30s
.PHONY: fuzz
fuzz: ## every fuzz target, each for FUZZTIME=30s
	@GO="$(GO)" test/fuzz.sh $(FUZZTIME)

.PHONY: race
race: ## the race detector over the sidecar's concurrent code (needs gcc)
	@command -v gcc >/dev/null || { echo "make race: the race detector needs a C compiler: apt-get install -y gcc libc6-dev" >&2; exit 1; }
	@CGO_ENABLED=1 $(GO) test -race -count=1 -skip Prometheus ./webhook/sidecar/...

.PHONY: bench
bench: ## the figures of docs/design/performance.md, with bench-relay
	@$(TOOLS) $(TEST_TOOLS) >/dev/null
	@$(GO) run ./test/bench
	@$(GO) test -count=1 -run HundredClusters -v ./cmd/internal/reconcile
	@$(GO) test -run '^$$' -bench . -benchmem ./policy/... ./webhook/...
	@$(MAKE) --no-print-directory bench-relay

.PHONY: bench-relay
bench-relay: ## the relay compared with a Prometheus that signs itself, seven minutes; fails if a sample is lost
	@$(TOOLS) prometheus >/dev/null
	@$(GO) run ./test/bench -parts relay

.PHONY: bench-readiness
bench-readiness: ## the delay of readiness by injection on a real node, five starts each; fails above 0.5 s (root, Linux)
	@$(GO) run ./test/node/preflight/cmd
	@$(TOOLS) $(TEST_TOOLS) $(NODE_TOOLS) >/dev/null
	@CGO_ENABLED=0 $(GO) test -tags e2e -count=1 -timeout 15m -v -run TestReadiness ./test/e2e/install -readiness 5

.PHONY: vuln
vuln: ## govulncheck; needs access to its database
	$(GO) run golang.org/x/vuln/cmd/govulncheck@latest ./...

.PHONY: tools
tools: ## build the programs for tests, demo and lint, and print their paths
	@$(TOOLS) $(TEST_TOOLS) $(SUITE_TOOLS) golangci-lint gotestsum actionlint
