# shellcheck shell=bash
# Installs the supervisors that the benchmark measures beside ours. Source this file.

PEERS_CACHE=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)/.cache

# Where they may be besides PATH.
PEERS_PATH=$PEERS_CACHE/peers/supervisor/bin:$PEERS_CACHE/cargo/bin

# peers_install: installs what is missing. One that cannot be installed is named, and not measured.
peers_install() {
    peers_try supervisord peers_install_supervisord
    peers_try s6-supervise peers_install_package s6
    peers_try runsv peers_install_package runit
    peers_try horust peers_install_horust
}

# peers_try PROGRAM COMMAND...
peers_try() {
    local program=$1
    shift
    if PATH=$PATH:$PEERS_PATH command -v "$program" >/dev/null; then
        return 0
    fi
    echo "installing $program" >&2
    "$@" >&2 || echo "cannot install $program: it is not measured" >&2
}

peers_install_supervisord() {
    python3 -m venv "$PEERS_CACHE/peers/supervisor" &&
        "$PEERS_CACHE/peers/supervisor/bin/python" -m pip install --quiet --disable-pip-version-check \
            supervisor==4.3.0
}

# No service of the distribution is set up with it: the tools alone are wanted.
peers_install_package() {
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        echo "$1 is a package of Debian, and only root can install it" >&2
        return 1
    fi
    apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$1"
}

peers_install_horust() {
    cargo install --quiet --locked --root "$PEERS_CACHE/cargo" --version 0.1.14 horust
}
