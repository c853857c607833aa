#!/usr/bin/env bash
# Makes prometheus and promtool available, and prints Prometheus' path. On failure the last line says what is missing.
set -euo pipefail
. "$(dirname "$0")/install.sh"

if ! command -v prometheus >/dev/null || ! command -v promtool >/dev/null; then
  install_packages prometheus
  # Debian starts it as a service as well. The tests start their own servers on ports of their own.
  if command -v systemctl >/dev/null; then
    systemctl disable --now prometheus >&2 2>/dev/null || true
  fi
fi
command -v prometheus
