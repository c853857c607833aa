#!/usr/bin/env bash
# image.sh NAME:TAG ARCHIVE PROGRAM...: writes an image that holds programs and the shared libraries that they load, as an
# archive that containerd and Docker import. It takes tar and sha256sum alone, no daemon. The programs lie where the
# Dockerfile puts the product's; the first of them runs, without root.
set -euo pipefail
name="$1" archive="$2"
shift 2
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
root="$folder/root"

mkdir -p "$root/usr/local/bin" "$root/etc/ssl/certs" "$root/tmp"
chmod 1777 "$root/tmp"
cp "$@" "$root/usr/local/bin/"
# A static program has none. glibc loads those of name resolution by itself.
libraries="$(ldd "$@" 2>/dev/null | grep -o '/[^ ]* (' | cut -d' ' -f1 | sort -u || true)"
if [ -n "$libraries" ]; then
  near_libc="$(dirname "$(grep '/libc\.so' <<<"$libraries")")"
  libraries="$libraries $near_libc/libnss_dns.so.2 $near_libc/libnss_files.so.2 $near_libc/libresolv.so.2"
  for library in $libraries; do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
  done
fi
certificates=/etc/ssl/certs/ca-certificates.crt
[ ! -e "$certificates" ] || cp -L "$certificates" "$root$certificates"
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
printf '%s\n' 'root:x:0:0:root:/:' 'nonroot:x:65532:65532::/:' >"$root/etc/passwd"

digest_of() { sha256sum "$1" | cut -d' ' -f1; }
tar -C "$root" --sort=name --numeric-owner --owner=0 --group=0 --mtime=@0 -cf "$folder/layer" .
layer="$(digest_of "$folder/layer")"
mv "$folder/layer" "$folder/$layer.tar"
architecture="$(uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')"
cat >"$folder/config" <<END
{"architecture": "$architecture", "os": "linux",
 "config": {"User": "65532:65532", "Entrypoint": ["/usr/local/bin/$(basename "$1")"]},
 "rootfs": {"type": "layers", "diff_ids": ["sha256:$layer"]}}
END
config="$(digest_of "$folder/config")"
mv "$folder/config" "$folder/$config.json"
cat >"$folder/manifest.json" <<END
[{"Config": "$config.json", "RepoTags": ["$name"], "Layers": ["$layer.tar"]}]
END
tar -C "$folder" -cf "$archive" manifest.json "$config.json" "$layer.tar"
