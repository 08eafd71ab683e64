#!/usr/bin/env bash
# Installs what the benchmarks need, makes the test data and builds the load generators. Each server is optional: one that
# cannot be had is said, and left out. Quick when everything is there.
#   setup.sh [TARGET...]        default: nginx caddy dufs miniserve copyparty
set -euo pipefail
BENCH=$(cd "$(dirname "$0")" && pwd)
SCRATCH=${TMPDIR:-/tmp}/carrack-bench
P=${BENCH_PEERS:-$SCRATCH/peers}
export BENCH_DATA=${BENCH_DATA:-$SCRATCH/data}
mkdir -p "$P" "$BENCH_DATA"
[ $# -gt 0 ] || set -- nginx caddy dufs miniserve copyparty

# Debian packages; no server that comes with one is started as a service.
apt_install() {
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "missing, to be installed by root: apt-get install $*" >&2
    return 1
  fi
  echo "installing: $*"
  local policy=/usr/sbin/policy-rc.d made=0
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    made=1
  fi
  local status=0
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null; } || status=$?
  [ "$made" = 0 ] || rm "$policy"
  return "$status"
}

needed=()
for program in curl wrk openssl; do command -v "$program" >/dev/null || needed+=("$program"); done
[ ${#needed[@]} = 0 ] || apt_install "${needed[@]}"

from_crates() { [ -x "$P/bin/$1" ] || CARGO_TARGET_DIR="$P/cargo-target" nice -n 19 cargo install --quiet --locked --root "$P" "$@"; }
install_target() {
  case "$1" in
    nginx | caddy) command -v "$1" >/dev/null || apt_install "$1" ;;
    dufs | miniserve) from_crates "$1" ;;
    rustus) from_crates rustus --version 0.5.10 ;;
    copyparty) [ -x "$P/py/bin/copyparty" ] || { python3 -m venv "$P/py" && "$P/py/bin/pip" -q install copyparty; } ;;
    tusnode) [ -d "$P/node/node_modules/@tus/server" ] || npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$P/node" @tus/server @tus/file-store ;;
    modzip) [ -e "$P/modzip/ngx_http_zip_module.so" ] || { echo "build mod_zip for this nginx, and put it to $P/modzip/ngx_http_zip_module.so" >&2; return 1; } ;;
    carrack) : ;;
    *) echo "no such target: $1" >&2 && return 1 ;;
  esac
}
for target in "$@"; do
  install_target "$target" || echo "left out: $target could not be installed" >&2
done

CARGO_TARGET_DIR="$P/tools-target" cargo build --quiet --release --locked --manifest-path "$BENCH/tools/Cargo.toml"
python3 "$BENCH/mkdata.py" ${BENCH_GROUPS:-D T}
