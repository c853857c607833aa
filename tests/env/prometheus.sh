#!/usr/bin/env bash
# Makes prometheus and promtool available, and prints Prometheus' path. On failure the last line says what is missing.
set -euo pipefail
. "$(dirname "$0")/install.sh"

if ! command -v prometheus >/dev/null || ! command -v promtool >/dev/null; then
  install_packages prometheus
  disable_service prometheus
fi
command -v prometheus
