#!/usr/bin/env bash
# Makes redis-server and redis-cli available, and prints the server's path. On failure the last line says what is missing.
set -euo pipefail
. "$(dirname "$0")/install.sh"

if ! command -v redis-server >/dev/null || ! command -v redis-cli >/dev/null; then
  install_packages redis-server
  disable_service redis-server
fi
command -v redis-server
