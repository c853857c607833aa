#!/usr/bin/env bash
# image.sh [--user UID:GID] [--files FOLDER] IMAGE ARCHIVE PROGRAM...: writes an image that holds programs, the shared libraries that they load,
# and the files of a folder. The programs lie where the Dockerfile puts the product's; the first of them runs, by default without root.
set -euo pipefail
options=() files=
while [[ "$1" == --* ]]; do
  case "$1" in
    --files) files="$2" ;;
    *) options+=("$1" "$2") ;;
  esac
  shift 2
done
image="$1" archive="$2"
shift 2
root="$(mktemp -d)"
trap 'rm -rf "$root"' EXIT
chmod 755 "$root"

mkdir -p "$root/usr/local/bin" "$root/etc/ssl/certs" "$root/tmp"
chmod 1777 "$root/tmp"
cp "$@" "$root/usr/local/bin/"
# What is for debuggers alone is most of a program, and would be copied to every node.
! command -v strip >/dev/null || strip --strip-debug "$root"/usr/local/bin/*
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
[ -z "$files" ] || cp -a "$files/." "$root/"
"$(dirname "$0")/archive.sh" "${options[@]}" "$image" "$archive" "$root" "/usr/local/bin/$(basename "$1")"
