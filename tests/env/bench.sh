#!/usr/bin/env bash
# Makes the load generator and the server that the redirect is measured beside available. On failure the last line says
# what is missing.
set -euo pipefail
. "$(dirname "$0")/install.sh"

PATH="$PATH:/usr/sbin:/sbin"
if ! command -v wrk >/dev/null || ! command -v nginx >/dev/null; then
  had_nginx="$(command -v nginx || true)"
  install_packages wrk nginx-light
  [ -n "$had_nginx" ] || disable_service nginx.service
fi
command -v wrk nginx
