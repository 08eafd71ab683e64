#!/usr/bin/env bash
# Installs what the tests need where it can: Debian packages as root, cargo-deny and clients of npm and Python from their
# registries. Otherwise prints the exact list and fails. Quick when everything is there.
set -euo pipefail

declare -A package=(
  [curl]=curl [wget]=wget [aria2c]=aria2 [unzip]=unzip [7z]=p7zip-full [bsdtar]=libarchive-tools [zipdetails]=perl
  [python3]=python3 [node]=nodejs [npm]=npm [java]=default-jdk-headless [javac]=default-jdk-headless [strace]=strace
  [openssl]=openssl [cc]=build-essential [chromium-headless-shell]=chromium-headless-shell
  [redis-server]=redis-server [rabbitmq-server]=rabbitmq-server [nginx]=nginx-light [haproxy]=haproxy [faketime]=faketime
)
# Where Debian has the programs of administrators, whoever runs this.
PATH=$PATH:/usr/sbin
missing=()
for program in "${!package[@]}"; do
  command -v "$program" >/dev/null || missing+=("${package[$program]}")
done
# Its programs are on nobody's PATH.
compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null || missing+=(postgresql)
# What reads the manifests in deploy/.
/usr/bin/python3 -c 'import yaml' 2>/dev/null || missing+=(python3 python3-yaml)
if ((${#missing[@]})); then
  mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
  if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
    echo "installing: ${missing[*]}"
    apt-get update -qq
    # The tests start engines of their own: those of the system stay off. What is there already is left as it is.
    if [[ " ${missing[*]} " == *" postgresql "* && ! -e /etc/postgresql-common/createcluster.conf ]]; then
      install -D -m 644 /dev/stdin /etc/postgresql-common/createcluster.conf <<<'create_main_cluster = false'
    fi
    quiet=()
    for unit in redis-server rabbitmq-server nginx haproxy; do
      [[ -e /lib/systemd/system/$unit.service ]] || quiet+=("$unit.service")
    done
    RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    if [[ -d /run/systemd/system ]] && ((${#quiet[@]})); then
      for unit in "${quiet[@]}"; do
        if [[ -e /lib/systemd/system/$unit ]]; then systemctl disable --now --quiet "$unit" || true; fi
      done
    fi
  else
    echo "The tests need these Debian packages: apt-get install ${missing[*]}" >&2
    exit 1
  fi
fi
# Clients in the field, at the versions that are named beside them.
clients=$(dirname "$0")/clients
if ! cmp -s "$clients/package-lock.json" "$clients/node_modules/installed"; then
  npm ci --prefix "$clients" --ignore-scripts --no-audit --no-fund --silent
  cp "$clients/package-lock.json" "$clients/node_modules/installed"
fi
if ! cmp -s "$clients/requirements.txt" "$clients/venv/installed"; then
  python3 -m venv "$clients/venv" || {
    echo "The tests need this Debian package: apt-get install python3-venv" >&2
    exit 1
  }
  "$clients/venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$clients/requirements.txt"
  cp "$clients/requirements.txt" "$clients/venv/installed"
fi
for component in rustfmt clippy; do
  command -v "cargo-${component/rustfmt/fmt}" >/dev/null || {
    echo "The tests need the Rust component $component: rustup component add $component" >&2
    exit 1
  }
done
command -v cargo-deny >/dev/null || cargo install cargo-deny --locked --quiet
# The S3 server of the cluster's tests comes as source alone. Without optimising across crates it takes half the time.
command -v garage >/dev/null || CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
  CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_DEBUG=false \
  cargo install garage --locked --quiet --version 2.5.0 --no-default-features --features bundled-libs,sqlite,metrics
