#!/usr/bin/env bash
# Makes the pinned Schemathesis available, in an environment of its own, and prints its path. On failure the last line
# says what is missing. Other pins get another environment, so that an old one is never taken for the new.
set -euo pipefail
. "$(dirname "$0")/install.sh"

requirements="$(dirname "$0")/requirements.txt"
pins="$(sha256sum "$requirements" | cut -c1-12)"
environment="$HOME/.cache/shortener/schemathesis-$pins"
program="$environment/bin/schemathesis"

if [ ! -x "$program" ]; then
  # Debian ships `venv` apart from Python; a Python that can make an environment has `ensurepip`.
  if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    install_packages python3 python3-venv
  fi
  rm -rf "$environment"
  python3 -m venv "$environment" >&2
  if ! "$environment/bin/pip" install --quiet --requirement "$requirements" >&2; then
    rm -rf "$environment"
    echo "pip could not install $requirements" >&2
    exit 1
  fi
fi
echo "$program"
