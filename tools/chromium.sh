#!/usr/bin/env bash
# Makes sure that a Chromium is there for the browser tests; from Debian's packages where that is allowed.
set -euo pipefail

# The font draws Chinese in screenshots.
packages="chromium fonts-wqy-microhei"

found() { command -v "${CHROMIUM:-chromium}" >/dev/null; }
found && exit 0

as_root=""
[ "$(id -u)" -eq 0 ] || as_root="sudo -n"
log=$(mktemp)
trap 'rm -f "$log"' EXIT

install() {
  command -v apt-get >/dev/null && $as_root true || return 1
  $as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q &&
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $packages
}

echo "Installing $packages ..." >&2
if ! install </dev/null >"$log" 2>&1 || ! found; then
  tail -n 5 "$log" >&2
  echo "The browser tests need Chromium: apt install $packages, or name one: CHROMIUM=/path/to/chromium make test" >&2
  exit 1
fi
