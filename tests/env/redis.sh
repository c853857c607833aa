#!/usr/bin/env bash
# Makes redis-server and redis-cli available, and prints the server's path. On failure the last line says what is missing.
set -euo pipefail
. "$(dirname "$0")/install.sh"

if ! command -v redis-server >/dev/null || ! command -v redis-cli >/dev/null; then
  install_packages redis-server
  # Debian starts it as a service as well. The tests start their own servers on ports of their own.
  if command -v systemctl >/dev/null; then
    systemctl disable --now redis-server >&2 2>/dev/null || true
  fi
fi
command -v redis-server
