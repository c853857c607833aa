#!/usr/bin/env bash
# servers.sh FOLDER TIKV REDIS_SERVER PROMETHEUS NGINX: images of the servers that the product is installed beside, as archives, under the
# names that the manifests in tests/manifests have for the real ones. TIKV is the folder that ../tikv.sh prints.
set -euo pipefail
folder="$1" tikv="$2" redis="$3" prometheus="$4" nginx="$5"
cd "$(dirname "$0")"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
mkdir "$folder"

# The real images of these two have a shell.
shell="$work/shell"
mkdir -p "$shell/bin"
cp "$(command -v busybox)" "$shell/bin/"
for program in sh sleep grep tail cat; do
  ln -s busybox "$shell/bin/$program"
done

../image.sh pingcap/pd:v8.1.0 "$folder/pd.tar" "$tikv/pd-server"
../image.sh pingcap/tikv:v8.1.0 "$folder/tikv.tar" "$tikv/tikvd"
../image.sh --files "$shell" redis:7.0 "$folder/redis.tar" "$redis" "$(dirname "$redis")/redis-cli"
../image.sh prom/prometheus:v2.42.0 "$folder/prometheus.tar" "$prometheus"
../image.sh --files "$shell" nginx:1.22 "$folder/nginx.tar" "$nginx"
