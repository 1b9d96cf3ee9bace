#!/usr/bin/env bash
# Writes a release into DIST: `make release` calls it, and sets the variables. The arguments are the programs
# `release` and `helm`. The same commit gives the same bytes, except for a signature with a key made for the run.
set -euo pipefail
release=$1 helm=$2
export SOURCE_DATE_EPOCH LC_ALL=C TZ=UTC
if ! [[ $VERSION =~ ^v[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$ ]]; then
    echo "make release: VERSION=$VERSION: want a semantic version after a v, such as v0.1.0" >&2
    exit 1
fi
if [ -n "$SIGNING_KEY" ] && ! ssh-keygen -y -P '' -f "$SIGNING_KEY" >/dev/null 2>&1; then
    echo "make release: SIGNING_KEY=$SIGNING_KEY: want the file of a private SSH key without a passphrase, as of
  ssh-keygen -t ed25519 -N '' -C $SIGNER -f FILE" >&2
    exit 1
fi
number=${VERSION#v}
name=ampbridge-$number
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
rm -rf "$DIST"
mkdir -p "$DIST"
DIST=$(cd "$DIST" && pwd)
say() { echo "release: $*"; }

build() { # build OS/ARCH OUTPUT PACKAGE
    GOOS=${1%/*} GOARCH=${1#*/} CGO_ENABLED=0 $GO build -trimpath -buildvcs=false -ldflags "$LDFLAGS" -o "$2" "$3"
}
options=(-version "$VERSION" -revision "$REVISION" -created "$SOURCE_DATE_EPOCH")
archives=() image=() all=()
for platform in $PLATFORMS; do
    suffix=${platform/\//-}
    program=$DIST/$name-$suffix plugin=kubectl-ampbridge
    case $platform in windows/*) program+=.exe plugin+=.exe ;; esac
    say "program for $platform"
    build "$platform" "$program" ./cmd/ampbridge
    "$release" sbom "${options[@]}" "$program" >"$DIST/$name-$suffix.cdx.json"
    all+=("$program")
    archive=$DIST/$name-$suffix.tar.gz
    "$release" archive "${options[@]}" "$plugin=$program" LICENSE=LICENSE >"$archive"
    archives+=("$archive")
    case $platform in
    linux/*)
        mkdir "$work/$suffix"
        cp "$program" "$work/$suffix/ampbridge"
        build "$platform" "$work/$suffix/config-sidecar" ./cmd/config-sidecar
        image+=("$platform=$work/$suffix") all+=("$work/$suffix/config-sidecar")
        "$release" sbom "${options[@]}" -image "$IMAGE" "$work/$suffix/ampbridge" "$work/$suffix/config-sidecar" \
            >"$DIST/$name-image-$suffix.cdx.json"
        ;;
    esac
done
if [ ${#image[@]} -gt 0 ]; then
    say "image $IMAGE"
    "$release" image "${options[@]}" -image "$IMAGE" "${image[@]}" >"$DIST/$name-image.tar"
fi
say "licences"
"$release" licenses "${all[@]}" >"$DIST/$name-third-party-licenses.txt"

say "krew manifest"
"$release" krew "${options[@]}" "${archives[@]}" >"$DIST/$name-krew.yaml"

say "chart $number"
cp -r charts/ampbridge "$work/chart"
find "$work/chart" -exec touch -d "@$SOURCE_DATE_EPOCH" {} +
"$helm" package "$work/chart" --version "$number" --app-version "$VERSION" --destination "$DIST" >/dev/null

notes=$DIST/$name-notes.md
awk -v version="$number" '/^## / {inside = index($0 " ", "## " version " ") == 1; next} inside' CHANGELOG.md >"$notes"
if ! [ -s "$notes" ]; then
    say "warning: CHANGELOG.md has no heading \"## $number - DATE\": the notes are those under \"## Unreleased\""
    awk '/^## / {inside = $2 == "Unreleased"; next} inside' CHANGELOG.md >"$notes"
fi

say "provenance, checksums, signature"
cd "$DIST"
"$release" provenance "${options[@]}" -builder "$BUILDER" "$name"* >"$work/provenance"
mv "$work/provenance" "$name-provenance.intoto.json"
sha256sum "$name"* >SHA256SUMS
cd - >/dev/null
if [ -z "$SIGNING_KEY" ]; then
    say "warning: SIGNING_KEY is not set: the signature is by a key made for this run, and nothing to publish"
    SIGNING_KEY=$work/key
    ssh-keygen -q -t ed25519 -N '' -C trial -f "$SIGNING_KEY"
fi
ssh-keygen -q -Y sign -f "$SIGNING_KEY" -n ampbridge-release "$DIST/SHA256SUMS"
echo "$SIGNER namespaces=\"ampbridge-release\" $(ssh-keygen -y -f "$SIGNING_KEY" | cut -d' ' -f1,2)" >"$DIST/allowed_signers"
say "complete in $DIST"
