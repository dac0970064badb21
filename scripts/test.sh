#!/usr/bin/env bash
# Runs every check of the repository. See --help.
set -uo pipefail

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." || exit 1
repo=$PWD
cache=$repo/.cache
nats_versions="2.10.26 2.11.11 2.12.8 2.14.6 2.15.1"

usage() {
    cat <<'HELP'
Usage: scripts/test.sh [--quick | --full]

Installs what the tests need under .cache/ and target/, runs every check and ends with the line
`N passed, N failed`. Exits with 1 when anything failed.

  --quick  leave out everything that needs Docker, the fuzzing, schemathesis and the scrapes
  --full   also run what takes long (UNIFIED_NATS_FULL=1 for the tests)

A check that this machine cannot run is skipped and named; with CI=true it has failed.
HELP
}

quick=
full=
case ${1:-} in
    '') ;;
    --quick) quick=1 ;;
    --full) full=1 ;;
    -h | --help)
        usage
        exit 0
        ;;
    *)
        usage >&2
        exit 64
        ;;
esac

# shellcheck source-path=SCRIPTDIR source=lib/nats-server.sh
. scripts/lib/nats-server.sh
# shellcheck source-path=SCRIPTDIR source=lib/docker.sh
. scripts/lib/docker.sh
# shellcheck source-path=SCRIPTDIR source=lib/stand-ins.sh
. scripts/lib/stand-ins.sh

mkdir -p "$cache/logs"
export PATH=$cache/venv/bin:$cache/cargo/bin:$PATH
export UNIFIED_NATS_TEST_SERVERS=$cache/nats-server
if [ -n "$full" ]; then
    export UNIFIED_NATS_FULL=1
fi
trap docker_stop EXIT

# ---- counting ----

passed=0
failed=0
skipped=0
remarks=()

say() {
    printf '\n== %s\n' "$*"
}

pass() {
    passed=$((passed + 1))
    echo "PASS $1"
}

fail() {
    failed=$((failed + ${2:-1}))
    remarks+=("FAILED   $1")
    echo "FAIL $1"
}

# cannot_run NAME REASON
cannot_run() {
    if [ "${CI:-}" = true ]; then
        fail "$1 (cannot run here: $2)"
    else
        skipped=$((skipped + 1))
        remarks+=("SKIPPED  $1: $2")
        echo "SKIP $1: $2"
    fi
}

# step NAME COMMAND...: one check that passes or fails.
step() {
    local name=$1 started=$SECONDS
    shift
    say "$name"
    if "$@"; then
        pass "$name ($((SECONDS - started)) s)"
    else
        fail "$name"
    fi
}

# step_with NAME TOOL COMMAND...: the same, for a command that needs TOOL.
step_with() {
    local name=$1 tool=$2
    shift 2
    if command -v "$tool" >/dev/null; then
        step "$name" "$@"
    else
        cannot_run "$name" "$tool is not installed"
    fi
}

# suite NAME REPORT COMMAND...: a command that counts for itself. REPORT reads its output and
# prints "passed failed skipped"; a command that fails without reporting a failure is one more.
suite() {
    local name=$1 report=$2 log=$cache/logs/$1.log status=0 started=$SECONDS counts
    shift 2
    say "$name"
    "$@" 2>&1 | tee "$log"
    status=${PIPESTATUS[0]}
    read -r -a counts <<<"$("$report" "$log")"
    if [ "${#counts[@]}" -ne 3 ]; then
        fail "$name (ended with status $status before any result)"
        return
    fi
    if [ "$status" -ne 0 ] && [ "${counts[1]}" -eq 0 ]; then
        counts[1]=1
    fi
    passed=$((passed + counts[0]))
    skipped=$((skipped + counts[2]))
    if [ "${counts[1]}" -gt 0 ]; then
        fail "$name: ${counts[1]} failed, see .cache/logs/$name.log" "${counts[1]}"
    fi
    if [ "${counts[2]}" -gt 0 ]; then
        remarks+=("SKIPPED  $name: ${counts[2]} left out, see .cache/logs/$name.log")
    fi
    echo "$name: ${counts[0]} passed, ${counts[1]} failed, ${counts[2]} skipped ($((SECONDS - started)) s)"
}

# "Summary [ 1.2s] 9/10 tests run: 7 passed (1 slow), 1 failed, 1 timed out, 3 skipped"
report_nextest() {
    awk '/Summary \[.*tests? run:/ {
        run = passed = skipped = 0
        for (i = 2; i <= NF; i++) {
            if ($i ~ /^tests?$/) { split($(i - 1), n, "/"); run = n[1] }
            if ($i ~ /^passed/) passed = $(i - 1)
            if ($i ~ /^skipped/) skipped = $(i - 1)
        }
        found = 1
    } END { if (found) print passed, run - passed, skipped }' "$1"
}

# One line for each test binary: "test result: ok. 7 passed; 0 failed; 1 ignored; ..."
report_cargo_test() {
    awk '/^test result:/ { passed += $4; failed += $6; ignored += $8; found = 1 }
        END { if (found) print passed, failed, ignored }' "$1"
}

# The last line "7 passed, 0 failed"
report_e2e() {
    awk '/^[0-9]+ passed, [0-9]+ failed$/ { result = $1 " " $3 " 0" } END { print result }' "$1"
}

# ---- what the checks need ----

as_root_on_debian() {
    [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null
}

apt_install() {
    { apt-get update -q && DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -q --no-install-recommends "$@"; } >"$cache/logs/apt.log" 2>&1
}

install_nats_servers() {
    local version
    for version in $nats_versions; do
        nats_server_ensure "$version" || return 1
    done
}

install_python_tools() {
    local wanted=scripts/lib/test-tools.txt installed=$cache/venv/installed.txt
    if cmp -s "$wanted" "$installed"; then
        return 0
    fi
    rm -rf "$cache/venv"
    if ! python3 -m venv "$cache/venv" 2>/dev/null; then
        as_root_on_debian && apt_install python3-venv && python3 -m venv "$cache/venv" || return 1
    fi
    "$cache/venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$wanted" &&
        cp "$wanted" "$installed"
}

install_rust_components() {
    { cargo fmt --version && cargo clippy --version; } >/dev/null 2>&1 ||
        rustup component add rustfmt clippy
}

install_nextest() {
    cargo nextest --version >/dev/null 2>&1 ||
        cargo install --quiet --locked --root "$cache/cargo" cargo-nextest
}

# Takes two minutes the first time: the package on PyPI is too old for today's lock files.
install_deny() {
    cargo deny --version >/dev/null 2>&1 ||
        cargo install --quiet --locked --root "$cache/cargo" cargo-deny
}

install_fuzz() {
    cargo fuzz --version >/dev/null 2>&1 ||
        cargo install --quiet --locked --root "$cache/cargo" cargo-fuzz
}

# The clock of the fault suite.
install_libfaketime() {
    compgen -G '/usr/lib/*/faketime/libfaketime.so.1' >/dev/null ||
        { as_root_on_debian && apt_install libfaketime; }
}

# For the tests of metrics and alerts, and its promtool.
install_prometheus() {
    if ! command -v promtool >/dev/null || ! command -v prometheus >/dev/null; then
        as_root_on_debian && apt_install prometheus
    fi
}

# Clients for the examples of the documents.
install_node_client() {
    if ! command -v npm >/dev/null; then
        as_root_on_debian && apt_install nodejs npm || return 1
    fi
    npm install --silent --no-fund --no-audit --prefix "$cache/node" \
        nats@2.29.3 eventsource@4.1.1 ws@8.23.0 >&2
}

# The browser of the dashboard's tests, and what drives it.
install_browser() {
    if ! command -v chromium >/dev/null; then
        as_root_on_debian && apt_install chromium || return 1
    fi
    install_node_client &&
        npm install --silent --no-fund --no-audit --prefix "$cache/node" playwright-core@1.65.1 axe-core@4.14.1 >&2
}

# ---- the checks ----

yaml_files() {
    git ls-files '*.yml' '*.yaml' | grep -v '/templates/'
}

lint_yaml() {
    yaml_files | xargs yamllint --strict -d \
        '{extends: default, rules: {line-length: disable, document-start: disable, truthy: {check-keys: false}}}'
}

prometheus_rules() {
    promtool check rules deploy/prometheus/alerts.yml && promtool test rules deploy/prometheus/tests/*.yml
}

compose_config() {
    local file log=$cache/logs/compose.log
    for file in docker-compose.unified.yml deploy/compose/*.yml; do
        # From an empty environment: a machine's own settings must not hide a missing default.
        if ! env -i PATH="$PATH" HOME="$HOME" NATS_CLUSTER_PASSWORD=test \
            docker compose --env-file /dev/null -f "$file" config -q 2>"$log" || [ -s "$log" ]; then
            cat "$log" >&2
            return 1
        fi
    done
}

# No database of advisories is among what a closed network offers, so that its lack is told, and is
# no failure under CI either.
check_advisories() {
    local name="advisories" log=$cache/logs/advisories.log
    say "$name"
    scripts/advisories.sh 2>&1 | tee "$log"
    case ${PIPESTATUS[0]} in
        0) pass "$name" ;;
        3)
            skipped=$((skipped + 1))
            remarks+=("SKIPPED  $name: $(tail -n 1 "$log")")
            ;;
        *) fail "$name" ;;
    esac
    if grep -q '^STALE' "$log"; then
        remarks+=("WARNING  $name: $(grep '^STALE' "$log")")
    fi
}

docs_without_warnings() {
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps
}

say "installing what the checks need"
if ! command -v cargo >/dev/null; then
    echo "cannot test: cargo is not installed; get Rust from https://rustup.rs" >&2
    exit 1
fi
install_python_tools || echo "the Python tools could not be installed" >&2
install_prometheus || echo "prometheus could not be installed" >&2
install_node_client || echo "node and its packages could not be installed" >&2
install_rust_components || echo "rustfmt and clippy could not be installed" >&2
nextest=1
install_nextest || nextest=

step "nats-server versions" install_nats_servers
step "cargo fmt" cargo fmt --all --check
step "cargo fmt of the fuzz targets" cargo fmt --manifest-path fuzz/Cargo.toml --check
step "cargo clippy" cargo clippy --locked --all-targets -- -D warnings
step "cargo doc" docs_without_warnings
step_with "shellcheck" shellcheck shellcheck -x scripts/*.sh scripts/lib/*.sh .ci/run
step_with "hadolint" hadolint hadolint Dockerfile.unified
step_with "yamllint" yamllint lint_yaml
step_with "prometheus rules" promtool prometheus_rules

if install_deny; then
    step "cargo deny" cargo deny --locked check bans licenses sources
    check_advisories
else
    cannot_run "cargo deny" "cargo-deny could not be installed"
fi

if [ -n "$nextest" ]; then
    suite "tests" report_nextest cargo nextest run --locked --no-fail-fast --color never -E 'not binary(faults)'
else
    echo "cargo-nextest could not be installed: cargo test runs the tests instead" >&2
    suite "tests" report_cargo_test cargo test --locked --lib --bins --test integration --no-fail-fast
fi
if ! install_browser; then
    cannot_run "dashboard in a browser" "chromium, node and its packages are not available"
elif cargo build --locked; then
    suite "dashboard" report_e2e node tests/e2e/dashboard_browser.mjs "${CARGO_TARGET_DIR:-target}/debug/unified-nats" \
        "$cache/nats-server/2.15.1/nats-server" "$cache/node" "$cache/dashboard"
else
    fail "dashboard in a browser (the program cannot be built)"
fi
step "doc tests" cargo test --locked --doc

if [ -n "$quick" ]; then
    cannot_run "fuzz" "left out by --quick"
elif ! install_fuzz; then
    cannot_run "fuzz" "cargo-fuzz could not be installed"
elif ! command -v c++ >/dev/null; then
    cannot_run "fuzz" "libFuzzer needs a C++ compiler"
else
    step "fuzz" scripts/fuzz.sh --seconds "$([ -n "$full" ] && echo 300 || echo 30)"
fi

if [ -n "$quick" ]; then
    cannot_run "schemathesis" "left out by --quick"
elif ! [ -x "$cache/venv/bin/schemathesis" ]; then
    cannot_run "schemathesis" "python3 with venv is not available"
else
    step "schemathesis" scripts/schemathesis.sh
fi

if [ -n "$quick" ]; then
    cannot_run "scrapes" "left out by --quick"
else
    step "scrapes" scripts/scrapes.sh
fi

if [ -n "$quick" ]; then
    cannot_run "docker compose config" "left out by --quick"
    cannot_run "container tests" "left out by --quick"
elif ! docker_ensure "$cache/logs"; then
    cannot_run "docker compose config" "there is no Docker Engine with the compose plugin"
    cannot_run "container tests" "there is no Docker Engine with the compose plugin"
else
    step "docker compose config" compose_config
    if ! stand_ins_ensure Dockerfile.unified; then
        cannot_run "container tests" "the base images are not available"
    elif ! install_node_client; then
        cannot_run "container tests" "node and the npm package nats are not available"
    elif ! [ -x "$cache/venv/bin/python" ]; then
        cannot_run "container tests" "python3 with venv is not available"
    else
        suite "container-tests" report_e2e env UNIFIED_NATS_NODE_CLIENT="$cache/node" \
            "$cache/venv/bin/python" -u tests/e2e/compose_e2e.py
    fi
fi

# After the container tests, whose image it takes.
install_libfaketime || echo "libfaketime could not be installed" >&2
suite "faults" "$([ -n "$nextest" ] && echo report_nextest || echo report_cargo_test)" \
    scripts/faults.sh ${quick:+--without-docker}

# ---- result ----

say "result after $SECONDS s"
if [ "${#remarks[@]}" -gt 0 ]; then
    printf '%s\n' "${remarks[@]}"
fi
result="$passed passed, $failed failed"
if [ "$skipped" -gt 0 ]; then
    result+=", $skipped skipped"
fi
echo "$result"
[ "$failed" -eq 0 ]
