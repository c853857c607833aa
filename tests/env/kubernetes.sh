#!/usr/bin/env bash
# Builds a whole Kubernetes, etcd and DNS included, kind, and Helm, and prints the directory that holds their programs. Other sources get
# another directory, so that an old build is never taken for the new. On failure the last line says what is missing. A cold
# build downloads 1.1 GB of Go modules and takes eight to fourteen minutes on two cores; afterwards this takes no time.
set -euo pipefail
export LC_ALL=C # the order of the sources below
cd "$(dirname "$0")/kubernetes"

sources="$(find . ../kubernetes.sh -type f | sort | xargs cat | sha256sum | cut -c1-12)"
cache="$HOME/.cache/shortener"
directory="$cache/kubernetes-$sources"

if [ ! -d "$directory" ]; then
  if ! go="$(command -v go || PATH="$PATH:/usr/local/go/bin" command -v go)"; then
    echo "the Go toolchain is missing, 1.24 or newer (https://go.dev/dl)" >&2
    exit 1
  fi
  mkdir -p "$cache"
  # Whoever comes second waits here, and finds what the first has built.
  exec 9>"$cache/kubernetes.lock"
  flock 9
fi

if [ ! -d "$directory" ]; then
  building="$(mktemp -d "$cache/kubernetes-building.XXXXXX")"
  trap 'rm -rf "$building"' EXIT
  # Compiling is nearly all of the time. Compilers that collect no garbage, inline nothing and write nothing for debuggers
  # take half of it; the programs are slower for that, which no test is about.
  export CGO_ENABLED=0 GOFLAGS=-buildvcs=false GOGC=off
  build() {
    nice -n 10 "$go" -C "$1" build "-gcflags=all=-l -dwarf=false" -ldflags "-s -w ${4:-}" -o "$building/$2" "$3" >&2
  }
  version="$(sed -n 's/^[[:space:]]*k8s\.io\/kubernetes \(v[0-9.]*\)$/\1/p' cluster/go.mod)"
  minor="${version#v1.}"
  minor="${minor%%.*}"
  # Clients and servers tell each other what they are; a release is named when it is linked.
  names=""
  for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    names+=" -X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=$minor"
  done
  helm_version="$(sed -n 's/^require helm\.sh\/helm\/v3 \(v[0-9.]*\)$/\1/p' helm/go.mod)"
  if ! build cluster kubernetes . "$names" || ! build cluster pause ./pause ||
    ! build cluster coredns ./coredns || ! build cluster kind sigs.k8s.io/kind ||
    ! build cluster local-path-provisioner github.com/rancher/local-path-provisioner ||
    ! build helm helm helm.sh/helm/v3/cmd/helm "-X helm.sh/helm/v3/internal/version.version=$helm_version"; then
    echo "Go could not build Kubernetes and Helm (does it reach the Go module proxy?)" >&2
    exit 1
  fi
  for program in etcd kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubeadm kubectl; do
    ln -s kubernetes "$building/$program"
  done
  chmod 755 "$building"
  mv -T "$building" "$directory"
fi
echo "$directory"
