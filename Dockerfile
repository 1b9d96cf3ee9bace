# One image, two static programs, nothing else: no shell, no libc, no package
# manager. CA roots are in the programs.
#
#   docker build .                                            builds the programs in a container
#   docker build --target prebuilt .                          takes them from bin/linux-<arch>/, as make image does
#   docker buildx build --platform linux/amd64,linux/arm64 .  cross-compiles; nothing runs under emulation
#
# The same commit gives the same image: docs/reference/image.md says how.

# Releases are not built here, and take nothing from this image: docs/reference/image.md. It can be pinned by its digest.
ARG GO_IMAGE=golang:1.26

# Before the stage `build`, so that a builder that makes stages in their order
# needs no registry for this one.
FROM scratch AS prebuilt
ARG TARGETARCH=amd64
COPY --chmod=0755 bin/linux-${TARGETARCH}/ampbridge bin/linux-${TARGETARCH}/config-sidecar /
USER 65532:65532
ENTRYPOINT ["/ampbridge"]

FROM --platform=${BUILDPLATFORM} ${GO_IMAGE} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG TARGETOS=linux TARGETARCH=amd64
# What `ampbridge version` tells. Git's own files do not come into the builder.
ARG VERSION= REVISION=
RUN CGO_ENABLED=0 GOOS=${TARGETOS} GOARCH=${TARGETARCH} go build -trimpath -buildvcs=false -o /out/ \
      -ldflags "-s -w \
        -X github.com/ampbridge/ampbridge/cmd/internal/cli.release=${VERSION} \
        -X github.com/ampbridge/ampbridge/cmd/internal/cli.revision=${REVISION} \
        -X main.release=${VERSION}" \
      ./cmd/ampbridge ./cmd/config-sidecar

FROM scratch
COPY --from=build --chmod=0755 /out/ampbridge /out/config-sidecar /
USER 65532:65532
ENTRYPOINT ["/ampbridge"]
