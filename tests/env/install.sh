# Sourced by the scripts beside it. `install_packages` gives Debian packages to whoever may install them; everything it
# says goes to standard error, since the callers' standard output is read by `cargo xtask test`.
install_packages() {
  if ! command -v apt-get >/dev/null; then
    echo "install $* (this system has no apt-get to do it)" >&2
    return 1
  fi
  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    if ! sudo --non-interactive true 2>/dev/null; then
      echo "install $* (it takes root: sudo apt-get install $*)" >&2
      return 1
    fi
    as_root=(sudo)
  fi
  "${as_root[@]}" apt-get update >&2 || true # an index that is stale may still do
  if ! "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "$@" >&2; then
    echo "apt-get could not install $*" >&2
    return 1
  fi
}

# disable_service NAME…: what Debian starts as a service with a package that was just installed. The tests start their own.
disable_service() {
  if command -v systemctl >/dev/null; then
    systemctl disable --now "$@" >&2 2>/dev/null || true
  fi
}
