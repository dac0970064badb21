#!/usr/bin/env bash
# Fuzzes what reads foreign text. See --help.
set -uo pipefail

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." || exit 1
cache=$PWD/.cache

usage() {
    cat <<'HELP'
Usage: scripts/fuzz.sh [--seconds N] [TARGET...]

Runs each fuzz target (all of fuzz/fuzz_targets without arguments) for N seconds (60), two at a
time, from the corpus in fuzz/corpus. Fails when one finds a crash, a hang or a leak; the input
then lies in fuzz/artifacts/TARGET.

Installs cargo-fuzz under .cache/ if it is missing. Uses the nightly toolchain where there is one
(with the address sanitizer), else the default one without a sanitizer.

  cargo +nightly fuzz run TARGET fuzz/artifacts/TARGET/crash-…   reproduces a finding
HELP
}

seconds=60
targets=()
while [ $# -gt 0 ]; do
    case $1 in
        --seconds)
            seconds=${2:-}
            shift
            ;;
        -h | --help)
            usage
            exit 0
            ;;
        -*)
            usage >&2
            exit 64
            ;;
        *) targets+=("$1") ;;
    esac
    shift
done
if ! [[ $seconds =~ ^[1-9][0-9]*$ ]]; then
    echo "cannot fuzz for --seconds '$seconds': it must be a whole number above 0" >&2
    exit 64
fi
if [ ${#targets[@]} -eq 0 ]; then
    for target in fuzz/fuzz_targets/*.rs; do
        targets+=("$(basename "$target" .rs)")
    done
fi
for target in "${targets[@]}"; do
    if ! [ -f "fuzz/fuzz_targets/$target.rs" ]; then
        echo "cannot fuzz $target: there is no fuzz/fuzz_targets/$target.rs" >&2
        exit 64
    fi
done

export PATH=$cache/cargo/bin:$PATH
if ! cargo fuzz --version >/dev/null 2>&1; then
    cargo install --quiet --locked --root "$cache/cargo" cargo-fuzz || exit 1
fi

if cargo +nightly --version >/dev/null 2>&1; then
    toolchain=(+nightly)
    options=(--sanitizer address)
else
    # Coverage is all that is needed; only the sanitizers themselves insist on a nightly compiler.
    export RUSTC_BOOTSTRAP=1
    toolchain=()
    options=(--sanitizer none)
fi

# A second build of nearly everything: once, and not by two targets at a time.
cargo "${toolchain[@]}" fuzz build "${options[@]}" || exit 1

mkdir -p "$cache/logs"
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT

# What is found is kept under .cache/; the corpus in the repository is only read.
fuzz() {
    local target=$1 grown=$cache/fuzz/$1 log=$cache/logs/fuzz-$1.log
    mkdir -p "$grown" "$scratch/$target"
    if TMPDIR=$scratch/$target cargo "${toolchain[@]}" fuzz run "${options[@]}" "$target" \
        "$grown" "fuzz/corpus/$target" -- \
        -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
        >"$log" 2>&1; then
        awk -v target="$target" '/^stat::number_of_executed_units/ { print target ": " $2 " inputs, no finding" }' \
            "$log"
        return 0
    fi
    grep -m 1 -A 1 'panicked at\|ERROR: ' "$log" >&2
    sed -n '/^Failing input/,/^Reproduce with/p' "$log" >&2
    echo "$target: a finding, see .cache/logs/fuzz-$target.log and fuzz/artifacts/$target" >&2
    return 1
}

failed=0
running=0
for target in "${targets[@]}"; do
    if [ "$running" -eq 2 ]; then
        wait -n || failed=$((failed + 1))
        running=$((running - 1))
    fi
    fuzz "$target" &
    running=$((running + 1))
done
while [ "$running" -gt 0 ]; do
    wait -n || failed=$((failed + 1))
    running=$((running - 1))
done
[ "$failed" -eq 0 ]
