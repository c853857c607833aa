#!/usr/bin/env bash
# Makes Chromium and its driver available, and prints the driver's path. On failure the last line says what is missing.
set -euo pipefail
. "$(dirname "$0")/install.sh"

if ! command -v chromium >/dev/null || ! command -v chromedriver >/dev/null; then
  install_packages chromium chromium-driver
fi
command -v chromedriver
