#!/usr/bin/env bash
# Makes available what a kind cluster takes on a machine without a container registry (Docker's engine, a Debian to make the
# machines' image of, Kubernetes), and prints the directory that holds it. Other sources get another directory. On failure the
# last line says what is missing. A cold run takes two minutes beyond Kubernetes' own build; afterwards this takes no time.
set -euo pipefail
export LC_ALL=C # the order of the sources below
cd "$(dirname "$0")"
. ./install.sh

PATH="$PATH:/usr/sbin:/sbin"
if [ "$(id -u)" -ne 0 ]; then
  echo "root (Docker's engine and debootstrap take it)" >&2
  exit 1
fi
if docker --host unix:///var/run/docker.sock version >/dev/null 2>&1; then
  echo "a machine where no Docker engine runs, since two would share their rules for iptables (or KUBECONFIG of a cluster that is there)" >&2
  exit 1
fi
missing=()
for needed in dockerd:docker.io containerd:containerd runc:runc iptables:iptables debootstrap:debootstrap jq:jq busybox:busybox-static; do
  command -v "${needed%%:*}" >/dev/null || missing+=("${needed#*:}")
done
[ -x /usr/lib/cni/ptp ] || missing+=(containernetworking-plugins)
if [ "${#missing[@]}" -gt 0 ]; then
  install_packages "${missing[@]}"
  [[ " ${missing[*]} " != *" docker.io "* ]] || disable_service docker.service docker.socket
fi

kubernetes="$(./kubernetes.sh)"
tikv="$(./tikv.sh)"
redis="$(./redis.sh)"
prometheus="$(./prometheus.sh)"
nginx="$(./bench.sh | tail -n 1)"
sources="$(find kind kind.sh image.sh archive.sh -type f | sort | xargs cat | sha256sum | cut -c1-12)"
cache="$HOME/.cache/shortener"
directory="$cache/kind-$sources-${kubernetes##*-}-${tikv##*-}"
if [ ! -d "$directory" ]; then
  # Whoever comes second waits here, and finds what the first has built.
  exec 9>"$cache/kind.lock"
  flock 9
fi
if [ ! -d "$directory" ]; then
  building="$(mktemp -d "$cache/kind-building.XXXXXX")"
  trap 'rm -rf "$building"' EXIT
  ln -s "$kubernetes" "$building/kubernetes"
  go="$(command -v go || PATH="$PATH:/usr/local/go/bin" command -v go)"
  if ! CGO_ENABLED=0 GOFLAGS=-buildvcs=false "$go" -C kind/runc build -ldflags "-s -w" -o "$building/runc" . >&2; then
    echo "Go could not build kind/runc" >&2
    exit 1
  fi
  # The Debian is the slow part and changes seldom: it is kept apart.
  kind/debian.sh "$cache/kind-debian-$(sha256sum kind/debian.sh | cut -c1-12).tar" "$building/debian.tar" >&2
  kind/servers.sh "$building/images" "$tikv" "$redis" "$prometheus" "$nginx"
  chmod 755 "$building"
  mv -T "$building" "$directory"
fi
echo "$directory"
