#!/usr/bin/env bash
# up.sh DIRECTORY NAME KUBECONFIG: a kind cluster out of kind-config.yaml, on Docker's engine of the tests, which is started if it does not
# run. DIRECTORY is what ../kind.sh has prepared.
set -euo pipefail
directory="$(realpath "$1")" name="$2" kubeconfig="$3"
cd "$(dirname "$0")"
. ./docker.sh

lock_docker
start_docker "$directory"
image="localhost/kind-node:$(basename "$directory")"
if ! docker image inspect "$image" >/dev/null 2>&1; then
  ./node_image.sh "$directory" "$image"
fi
"$directory/kubernetes/kind" create cluster --name "$name" --image "$image" --config ../../../kind-config.yaml \
  --kubeconfig "$kubeconfig" --wait 120s
# It waits for the control plane alone.
"$directory/kubernetes/kubectl" --kubeconfig "$kubeconfig" wait --for=condition=Ready node --all --timeout=120s
