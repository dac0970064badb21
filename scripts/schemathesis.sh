#!/usr/bin/env bash
# Holds the REST API to its own OpenAPI document. See --help.
set -uo pipefail

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." || exit 1
cache=$PWD/.cache
nats_version=2.15.1

usage() {
    cat <<'HELP'
Usage: scripts/schemathesis.sh [--full] [--seed N] [ARGUMENT...]

Builds unified-nats, starts it on free ports with a store of its own, and has schemathesis send it
requests that its OpenAPI document allows and such that it does not. Fails on a server error, on an
answer that the document does not describe, and on bad input that is accepted. Takes about two
minutes, five with --full. Further arguments go to `schemathesis run`.

Needs a Rust toolchain and the Python tools of scripts/lib/test-tools.txt.
HELP
}

seconds=100
seed=11
arguments=()
while [ $# -gt 0 ]; do
    case $1 in
        --full) seconds=280 ;;
        --seed)
            seed=${2:-}
            shift
            ;;
        -h | --help)
            usage
            exit 0
            ;;
        *) arguments+=("$1") ;;
    esac
    shift
done
if [ "${UNIFIED_NATS_FULL:-}" = 1 ]; then
    seconds=280
fi

# shellcheck source-path=SCRIPTDIR source=lib/nats-server.sh
. scripts/lib/nats-server.sh

schemathesis=${UNIFIED_NATS_SCHEMATHESIS:-$cache/venv/bin/schemathesis}
if ! [ -x "$schemathesis" ]; then
    echo "cannot test: $schemathesis is missing: run scripts/test.sh, which installs it" >&2
    exit 1
fi
cargo build --quiet --locked || exit 1
nats_server_ensure "$nats_version" >/dev/null || exit 1

work=$(mktemp -d -t unified-nats-schemathesis-XXXXXX) || exit 1
broker=
# shellcheck disable=SC2317,SC2329  # the trap calls it
clean_up() {
    if [ -n "$broker" ]; then
        kill "$broker" 2>/dev/null
        wait "$broker" 2>/dev/null
    fi
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 143' TERM HUP INT

# Held open at the same time, so that they differ.
read -r nats http api < <(python3 -c '
import socket
held = [socket.socket() for _ in range(3)]
for one in held:
    one.bind(("127.0.0.1", 0))
print(*[one.getsockname()[1] for one in held])')
token=schemathesis
target=${CARGO_TARGET_DIR:-target}
env -i NATS_SERVER_BIN="$cache/nats-server/$nats_version/nats-server" JETSTREAM_STORE_DIR="$work/store" \
    NATS_CONFIG_FILE="$work/run/nats.conf" NATS_HOST=127.0.0.1 API_HOST=127.0.0.1 NATS_PORT="$nats" \
    NATS_HTTP_PORT="$http" API_PORT="$api" API_TOKEN="$token" API_REQUEST_TIMEOUT=5s STREAMS_DEFAULTS=none \
    "$target/debug/unified-nats" run >"$work/log" 2>&1 &
broker=$!
url=http://127.0.0.1:$api
for _ in $(seq 300); do
    if curl --silent --fail --max-time 2 "$url/readyz" >/dev/null; then
        break
    fi
    sleep 0.1
done

# One that captures the subject of the examples; none is declared, because those that are may be deleted as well.
if ! curl --silent --fail --max-time 5 --output /dev/null --header "Authorization: Bearer $token" \
    --header "Content-Type: application/json" \
    --data '{"name": "TRADES", "subjects": ["trade-data.>"]}' "$url/api/v1/broker/streams"; then
    echo "cannot test: the broker makes no stream" >&2
    tail -n 20 "$work/log" >&2
    exit 1
fi

lib=$PWD/scripts/lib
# It keeps a directory of its own where it runs.
cd "$work" || exit 1
SCHEMATHESIS_HOOKS=$lib/schemathesis_hooks.py SCHEMATHESIS_TOKEN=$token "$schemathesis" \
    --config-file "$lib/schemathesis.toml" run "$url/openapi.json" --checks all \
    --seed "$seed" --max-time "$seconds" --generation-database none --no-color "${arguments[@]}"
status=$?
if ! curl --silent --fail --max-time 5 "$url/readyz" >/dev/null; then
    echo "the broker is not ready any more:" >&2
    tail -n 20 "$work/log" >&2
    status=1
fi
if grep -q 'internal error' "$work/log"; then
    echo "something in the broker has panicked:" >&2
    grep -m 5 'internal error' "$work/log" >&2
    status=1
fi
exit "$status"
