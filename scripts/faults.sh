#!/usr/bin/env bash
# Injects faults into the real program under load. See --help.
set -euo pipefail

repo=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
nats_version=2.15.1

usage() {
    cat <<'HELP'
Usage: scripts/faults.sh [--full] [--only NAME[,NAME...]] [--seed N] [--write] [--without-docker]

Builds unified-nats, provides nats-server, runs tests/faults and prints a table of what was
injected and what it cost. The small dose takes about six minutes on two cores, the full one
hours. Exits with 1 when an invariant was violated.

  --full            the full dose (also with UNIFIED_NATS_FULL=1)
  --only NAME       only the tests with that in their name, such as kill_server
  --seed N          makes the choices of an earlier run again; every run prints its seed
  --write           put the table into RELIABILITY.md as well; with --only the rows of the other
                    tests stay
  --without-docker  start no Docker and build no image: what needs them cannot run

Needs a Rust toolchain and python3; root for small disks, process namespaces and Docker; the
Debian package libfaketime for the clock.
HELP
}

refuse() {
    usage >&2
    exit 64
}

full=${UNIFIED_NATS_FULL:-}
seed=$((RANDOM * 32768 + RANDOM))
only=
write=
docker=1
while [ $# -gt 0 ]; do
    case $1 in
        --full) full=1 ;;
        --write) write=1 ;;
        --without-docker) docker= ;;
        --only | --seed)
            [ $# -ge 2 ] || refuse
            if [ "$1" = --only ]; then only=$2; else seed=$2; fi
            shift
            ;;
        -h | --help)
            usage
            exit 0
            ;;
        *) refuse ;;
    esac
    shift
done
[[ $seed =~ ^[0-9]+$ ]] || refuse
[[ $only =~ ^[A-Za-z0-9_:,]*$ ]] || refuse

cd "$repo"
# shellcheck source-path=SCRIPTDIR source=lib/nats-server.sh
. scripts/lib/nats-server.sh
# shellcheck source-path=SCRIPTDIR source=lib/docker.sh
. scripts/lib/docker.sh
# shellcheck source-path=SCRIPTDIR source=lib/stand-ins.sh
. scripts/lib/stand-ins.sh

for tool in cargo python3; do
    if ! command -v "$tool" >/dev/null; then
        echo "cannot test: $tool is not installed" >&2
        exit 1
    fi
done

cache=$repo/.cache
mkdir -p "$cache/logs"
export PATH=$cache/cargo/bin:$PATH
work=$(mktemp -d -t unified-nats-faults-XXXXXX)

# A test that was killed could not clean up after itself.
# shellcheck disable=SC2317,SC2329  # the trap calls it
clean_up() {
    local mount container network
    while read -r mount; do
        fsfreeze --unfreeze "$mount" 2>/dev/null || true
        umount -l "$mount" || true
    done < <(awk -v under="$work/" 'index($2, under) == 1 { print $2 }' /proc/mounts)
    if [ -n "$docker" ]; then
        while read -r container; do
            docker rm --force --volumes "$container" >/dev/null || true
        done < <(docker ps --all --quiet --filter "label=unified-nats.faults=$work" 2>/dev/null)
        while read -r network; do
            docker network rm "$network" >/dev/null || true
        done < <(docker network ls --quiet --filter "label=unified-nats.faults=$work" 2>/dev/null)
        docker_stop
    fi
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 143' TERM HUP

nats_server_ensure "$nats_version" >/dev/null
export UNIFIED_NATS_TEST_SERVERS=$cache/nats-server

if [[ -n $docker && -n $only && ! $only =~ docker|memory|cluster ]]; then
    docker=
fi
if [ -n "$docker" ]; then
    image=marketprism/unified-nats-debug:faults
    # The revision is the one of the container tests, so that what they compiled is taken.
    if docker_ensure "$cache/logs" && stand_ins_ensure Dockerfile.unified &&
        docker build --target debug --build-arg VCS_REF=e2e --tag "$image" --file Dockerfile.unified . \
            >"$cache/logs/faults-image.log" 2>&1; then
        export UNIFIED_NATS_FAULTS_IMAGE=$image
    else
        echo "the image could not be built, see .cache/logs/faults-image.log" >&2
    fi
fi

report=$work/report
: >"$report"
export UNIFIED_NATS_SEED=$seed UNIFIED_NATS_FAULTS_REPORT=$report UNIFIED_NATS_FULL=$full
# What a test leaves behind is found there.
export TMPDIR=$work
echo "seed $seed"

status=0
if cargo nextest --version >/dev/null 2>&1; then
    arguments=(--test faults --profile "$([ -n "$full" ] && echo full || echo default)")
    if [ -n "$only" ]; then
        arguments+=(-E "test(${only//,/) or test(})")
    fi
    cargo nextest run --locked --no-fail-fast --color never "${arguments[@]}" || status=$?
else
    IFS=, read -r -a names <<<"$only"
    cargo test --locked --test faults -- --test-threads 2 "${names[@]}" || status=$?
fi

# What is tested is the sources: a test or a script that changed since does not matter.
sources=(src templates assets build.rs Cargo.toml Cargo.lock)
commit=$(git log -1 --format=%h -- "${sources[@]}" 2>/dev/null || echo unknown)
if ! git diff --quiet HEAD -- "${sources[@]}" 2>/dev/null; then
    commit+=" with changes"
fi
arguments=(--report "$report" --commit "$commit")
if [ -n "$write" ]; then
    arguments+=(--write "$repo/RELIABILITY.md")
    if [ -n "$only" ]; then
        arguments+=(--beside)
    fi
fi
python3 -I scripts/faults.py "${arguments[@]}"
exit "$status"
