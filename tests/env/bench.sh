#!/usr/bin/env bash
# Makes the load generator and the server that the redirect is measured beside available. On failure the last line says
# what is missing.
set -euo pipefail
. "$(dirname "$0")/install.sh"

PATH="$PATH:/usr/sbin:/sbin"
if ! command -v wrk >/dev/null || ! command -v nginx >/dev/null; then
  had_nginx="$(command -v nginx || true)"
  install_packages wrk nginx-light
  # Debian starts it as a service as well.
  if [ -z "$had_nginx" ] && command -v systemctl >/dev/null; then
    systemctl disable --now nginx.service >&2 2>/dev/null || true
  fi
fi
command -v wrk nginx
