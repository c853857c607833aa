#!/usr/bin/env bash
# debian.sh KEPT LINK: a Debian with systemd and containerd, which a kind node's image is made of, as an archive; kept, and linked.
set -euo pipefail
kept="$1" link="$2"

packages=systemd,systemd-sysv,dbus,conntrack,iptables,nftables,iproute2,ethtool,util-linux,mount,kmod,libseccomp2,pigz,bash
packages+=,ca-certificates,curl,jq,procps,hostname,socat,containerd,runc,containernetworking-plugins,busybox-static
if [ ! -e "$kept" ]; then
  root="$(mktemp -d)"
  trap 'rm -rf "$root"' EXIT
  if ! debootstrap --variant=minbase --include="$packages" bookworm "$root" >"$root.log"; then
    tail -5 "$root.log" >&2
    echo "debootstrap could not make a Debian (does it reach a mirror?)" >&2
    exit 1
  fi
  rm -rf "$root.log" "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,man,locale}
  tar -C "$root" --numeric-owner -cf "$kept.new" .
  mv "$kept.new" "$kept"
fi
ln -s "$kept" "$link"
