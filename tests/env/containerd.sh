#!/usr/bin/env bash
# Makes available what a kubelet needs beside it (containerd, runc, network plugins, iptables) and a small program to put
# into pods (busybox), and prints containerd's path. On failure the last line says what is missing.
set -euo pipefail
. "$(dirname "$0")/install.sh"

PATH="$PATH:/usr/sbin:/sbin"
missing=
for program in containerd runc iptables ip nsenter busybox; do
  command -v "$program" >/dev/null || missing="$missing $program"
done
if [ -n "$missing" ] || [ ! -x /usr/lib/cni/bridge ]; then
  install_packages containerd runc containernetworking-plugins iptables iproute2 util-linux busybox-static
fi
command -v containerd
