#!/usr/bin/env bash
# down.sh DIRECTORY NAME: deletes the cluster, and ends Docker's engine of the tests unless it has other clusters. Its images stay.
set -euo pipefail
directory="$(realpath "$1")" name="$2"
cd "$(dirname "$0")"
. ./docker.sh

lock_docker
ended=0
"$directory/kubernetes/kind" delete cluster --name "$name" || ended=1
[ -n "$(docker ps --quiet)" ] || stop_docker
exit "$ended"
