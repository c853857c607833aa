#!/usr/bin/env bash
# Builds the real Placement Driver and tikvd, the store of the tests, and prints the directory that holds both. Other
# sources get another directory, so that an old build is never taken for the new. On failure the last line says what is
# missing. A cold build downloads 400 MB of Go modules and takes three to five minutes; afterwards this takes no time.
set -euo pipefail
export LC_ALL=C # the order of the sources below
cd "$(dirname "$0")/tikv"

sources="$(cat ../tikv.sh pd/* store/* | sha256sum | cut -c1-12)"
cache="$HOME/.cache/shortener"
directory="$cache/tikv-$sources"

if [ ! -d "$directory" ]; then
  if ! go="$(command -v go || PATH="$PATH:/usr/local/go/bin" command -v go)"; then
    echo "the Go toolchain is missing, 1.21 or newer (https://go.dev/dl)" >&2
    exit 1
  fi
  mkdir -p "$cache"
  # Whoever comes second waits here, and finds what the first has built.
  exec 9>"$cache/tikv.lock"
  flock 9
fi

if [ ! -d "$directory" ]; then
  building="$(mktemp -d "$cache/tikv-building.XXXXXX")"
  trap 'rm -rf "$building"' EXIT
  export CGO_ENABLED=0 GOFLAGS=-buildvcs=false
  # PD tells its clients the release that it is of; 8.1 is what its module's version stands for.
  release=github.com/tikv/pd/pkg/versioninfo.PDReleaseVersion=v8.1.0
  if ! "$go" -C pd build -trimpath -tags without_dashboard -ldflags "-s -w -X $release" \
      -o "$building/pd-server" github.com/tikv/pd/cmd/pd-server >&2 ||
    ! "$go" -C store build -trimpath -ldflags "-s -w" -o "$building/tikvd" . >&2; then
    echo "Go could not build PD and the store (does it reach the Go module proxy?)" >&2
    exit 1
  fi
  chmod 755 "$building"
  mv -T "$building" "$directory"
fi
echo "$directory"
