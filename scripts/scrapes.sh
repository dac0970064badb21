#!/usr/bin/env bash
# Scrapes /metrics many times, and says what that costs. See --help.
set -euo pipefail

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
cache=$PWD/.cache
nats_version=2.15.1

usage() {
    cat <<'HELP'
Usage: scripts/scrapes.sh [--figures] [--scrapes N] [--seconds N] [--binary FILE]

Starts unified-nats on free ports with a store of its own and scrapes /metrics over four
connections while messages come, until that were N times (default 20000) or for as many seconds
(default 40). Prints how much memory the supervisor has taken (RssAnon) and how much more with
each thousand scrapes; fails where that is more than 32 KiB, or where a scrape fails.

  --figures      print what a scrape takes instead, with eight families, 1,000 streams, and 5,000
                 streams of ten consumers each, and what an idle broker takes; takes three minutes
                 and is meant for a release build
  --binary FILE  that program instead of a debug build

Needs a Rust toolchain and python3.
HELP
}

binary=
arguments=()
while [ $# -gt 0 ]; do
    case $1 in
        --figures) arguments+=("$1") ;;
        --scrapes | --seconds | --binary)
            if [ $# -lt 2 ]; then
                usage >&2
                exit 64
            fi
            if [ "$1" = --binary ]; then
                binary=$2
            else
                arguments+=("$1" "$2")
            fi
            shift
            ;;
        -h | --help)
            usage
            exit 0
            ;;
        *)
            usage >&2
            exit 64
            ;;
    esac
    shift
done

# shellcheck source-path=SCRIPTDIR source=lib/nats-server.sh
. scripts/lib/nats-server.sh
if [ -z "$binary" ]; then
    cargo build --quiet --locked
    binary=${CARGO_TARGET_DIR:-target}/debug/unified-nats
fi
nats_server_ensure "$nats_version" >/dev/null
exec python3 scripts/lib/scrapes.py --binary "$binary" \
    --nats-server "$cache/nats-server/$nats_version/nats-server" "${arguments[@]}"
