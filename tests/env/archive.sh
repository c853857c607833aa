#!/usr/bin/env bash
# archive.sh [--user UID:GID] [--stop-signal NAME] IMAGE ARCHIVE ROOT ENTRYPOINT...: writes an image of one layer, the files under
# ROOT, as an archive that containerd and Docker import. It takes tar and sha256sum alone, no daemon.
set -euo pipefail
user=65532:65532 stop_signal=SIGTERM
while [[ "$1" == --* ]]; do
  case "$1" in
    --user) user="$2" ;;
    --stop-signal) stop_signal="$2" ;;
    *) echo "archive.sh knows no $1" >&2 && exit 2 ;;
  esac
  shift 2
done
image="$1" archive="$2" root="$3"
shift 3
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT

digest_of() { sha256sum "$1" | cut -d' ' -f1; }
tar -C "$root" --sort=name --numeric-owner --owner=0 --group=0 --mtime=@0 -cf "$folder/layer" .
layer="$(digest_of "$folder/layer")"
mv "$folder/layer" "$folder/$layer.tar"
architecture="$(uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')"
entrypoint="$(printf ', "%s"' "$@")"
cat >"$folder/config" <<END
{"architecture": "$architecture", "os": "linux",
 "config": {"User": "$user", "Entrypoint": [${entrypoint#, }], "StopSignal": "$stop_signal",
  "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "container=docker"]},
 "rootfs": {"type": "layers", "diff_ids": ["sha256:$layer"]}}
END
config="$(digest_of "$folder/config")"
mv "$folder/config" "$folder/$config.json"
cat >"$folder/manifest.json" <<END
[{"Config": "$config.json", "RepoTags": ["$image"], "Layers": ["$layer.tar"]}]
END
tar -C "$folder" -cf "$archive" manifest.json "$config.json" "$layer.tar"
