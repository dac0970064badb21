#!/usr/bin/env bash
# Measures the release build beside a bare nats-server. See --help.
set -euo pipefail

repo=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
nats_version=2.15.1

usage() {
    cat <<'HELP'
Usage: scripts/bench.sh [--write] [--peers] [--rounds N] [--only NAME[,NAME...]]
                        [--load-seconds N | --hour]

Builds unified-nats in release mode, provides nats-server and prints a table of what the
supervisor costs beside the same nats-server without it. Takes about four minutes and 3.5 GB in
TMPDIR.

  --write           put the table into BENCHMARKS.md as well
  --peers           first install the supervisors that recovery is compared with; without it
                    those are measured that are there
  --rounds N        rounds of the cheap measurements (default 30)
  --only NAME       only these: start, large, idle, check, streams, size, invalid, recovery,
                    flood; and those that run only when they are named: load, and of the
                    REST API rest, rest-load, rest-slow and pages (which need wrk)
  --load-seconds N  how long load lasts (default 120)
  --hour            short for --only load --load-seconds 3600

Needs a Rust toolchain and python3. The image is measured when Docker has one named
marketprism/unified-nats:latest.
HELP
}

write=
peers=
arguments=()
while [ $# -gt 0 ]; do
    case $1 in
        --write) write=1 ;;
        --peers) peers=1 ;;
        --hour) arguments+=(--only load --load-seconds 3600) ;;
        --rounds | --only | --load-seconds)
            if [ $# -lt 2 ]; then
                usage >&2
                exit 64
            fi
            arguments+=("$1" "$2")
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
if [ -n "$write" ]; then
    arguments+=(--write "$repo/BENCHMARKS.md")
fi

cd "$repo"
# shellcheck source-path=SCRIPTDIR source=lib/nats-server.sh
. scripts/lib/nats-server.sh
# shellcheck source-path=SCRIPTDIR source=lib/peers.sh
. scripts/lib/peers.sh

for tool in cargo python3; do
    if ! command -v "$tool" >/dev/null; then
        echo "cannot measure: $tool is not installed" >&2
        exit 1
    fi
done
cargo build --release --locked --quiet
nats_server=$(nats_server_ensure "$nats_version")
if [ -n "$peers" ]; then
    peers_install
fi
export PATH=$PATH:$PEERS_PATH
# What the broker that this one replaces was made of; without it that row is left out.
if [ ! -x .cache/bench/bin/python ]; then
    { python3 -m venv .cache/bench && .cache/bench/bin/python -m pip install --quiet aiohttp==3.13.2 nats-py==2.16.0; } \
        >&2 || rm -rf .cache/bench
fi

# What is measured is the sources: a table or a script that changed since does not matter.
sources=(src templates assets build.rs Cargo.toml Cargo.lock)
commit=$(git log -1 --format=%h -- "${sources[@]}" 2>/dev/null || echo unknown)
if ! git diff --quiet HEAD -- "${sources[@]}" 2>/dev/null; then
    commit+=" with changes"
fi

exec python3 -I scripts/bench.py --binary "${CARGO_TARGET_DIR:-target}/release/unified-nats" \
    --nats-server "$nats_server" --commit "$commit" "${arguments[@]}"
