#!/usr/bin/env bash
# Checks the dependencies against RustSec's advisories. See --help.
set -uo pipefail

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." || exit 1

usage() {
    cat <<'HELP'
Usage: scripts/advisories.sh

Checks Cargo.lock against a clone of RustSec's database with cargo-deny. The database is fetched
where that is possible; else the one at hand is used, and one that is older than 30 days is told.

  ADVISORY_DBS  a folder with clones as cargo-deny keeps them (advisory-db-…), instead of
                ~/.cargo/advisory-dbs; nothing is fetched then

Exits with 0 when nothing is known, 1 when something is, 3 when there is no database.
HELP
}

case ${1:-} in
    '') ;;
    -h | --help)
        usage
        exit 0
        ;;
    *)
        usage >&2
        exit 64
        ;;
esac

most_days=30
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT

databases=${ADVISORY_DBS:-}
if [ -z "$databases" ]; then
    databases=${CARGO_HOME:-$HOME/.cargo}/advisory-dbs
    timeout 60 cargo deny fetch db >"$work/fetch.log" 2>&1 ||
        echo "the advisories cannot be fetched here" >&2
fi

database=$(find "$databases" -mindepth 1 -maxdepth 1 -type d -name 'advisory-db-*' 2>/dev/null | head -n 1)
if [ -z "$database" ] || [ ! -d "$database/crates" ]; then
    echo "cannot check advisories: there is no clone of RustSec's database in $databases" >&2
    exit 3
fi
days=$((($(date +%s) - $(git -C "$database" log -1 --format=%ct)) / 86400))
echo "the advisories are $days days old"
if [ "$days" -gt "$most_days" ]; then
    echo "STALE: the advisories are older than $most_days days; what became known since is not checked"
fi

# The age is told above, and what is known of old is worth as much.
cp deny.toml "$work/deny.toml" || exit 1
printf '\n[advisories]\ndb-path = "%s"\nmaximum-db-staleness = "P3650D"\n' "$databases" >>"$work/deny.toml"
# Without it cargo-deny would want the crates of every other platform as well.
cargo metadata --locked --format-version 1 --filter-platform x86_64-unknown-linux-gnu >"$work/metadata.json" || exit 1
cargo deny --offline --metadata-path "$work/metadata.json" --config "$work/deny.toml" check advisories && exit 0
exit 1
