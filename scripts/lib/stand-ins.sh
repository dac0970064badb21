# shellcheck shell=bash
# Stand-ins for base images that cannot be pulled, so that the unmodified Dockerfile builds on a
# machine that reaches package registries but no image registry. For tests only: what is
# published is built from the real ones. Source this file after nats-server.sh.

# Tells a stand-in from the real image of that name: docker images --filter label=...
STAND_IN_LABEL='LABEL unified-nats.stand-in=true'

# stand_ins_ensure DOCKERFILE: makes sure every base image of the file is present.
stand_ins_ensure() {
    local image images
    images=$(stand_ins_bases "$1") || return 1
    for image in $images; do
        if docker image inspect "$image" >/dev/null 2>&1 || stand_ins_pull "$image"; then
            continue
        fi
        echo "$image cannot be pulled: building a stand-in" >&2
        case $image in
            rust:*) stand_in_rust "$image" ;;
            nats:*-scratch) stand_in_nats "$image" ;;
            debian:*-slim) stand_in_debian "$image" ;;
            *)
                echo "cannot replace $image: there is no recipe for it in scripts/lib/stand-ins.sh" >&2
                return 1
                ;;
        esac || {
            echo "cannot build the stand-in for $image; make the image available with docker pull" >&2
            return 1
        }
    done
}

# stand_ins_bases DOCKERFILE: prints the images its stages start from, defaults of ARGs filled in.
stand_ins_bases() {
    awk '
        $1 == "ARG" && split($2, arg, "=") == 2 { value[arg[1]] = arg[2] }
        $1 == "FROM" {
            image = $2
            for (name in value) gsub("[$][{]?" name "[}]?", value[name], image)
            if (image != "scratch" && !(image in stage)) print image
            if (toupper($3) == "AS") stage[$4] = 1
        }
    ' "$1"
}

# The manifest is asked for first: an unreachable registry is found out in seconds, while the
# pull itself may take minutes on a slow line.
stand_ins_pull() {
    timeout 20 docker manifest inspect "$1" >/dev/null 2>&1 && timeout 900 docker pull --quiet "$1" >&2
}

stand_ins_need_mmdebstrap() {
    if command -v mmdebstrap >/dev/null; then
        return 0
    fi
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        echo "cannot build a stand-in: mmdebstrap is not installed" >&2
        return 1
    fi
    { apt-get update -q && DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -q --no-install-recommends mmdebstrap; } >&2
}

# stand_ins_debootstrap SUITE [OPTION...]: writes a minimal Debian as a tar archive to standard
# output, fetched with the host's own settings for the archive (proxy, checks) and trusting the
# certificate authorities the host trusts.
stand_ins_debootstrap() {
    local suite=$1 apt_options status=0
    shift
    apt_options=$(mktemp) || return 1
    apt-config dump | grep -E '^Acquire::(Check|http|https|Retries)' >"$apt_options"
    # shellcheck disable=SC2016  # $1 is for the shell that runs the hook
    mmdebstrap --quiet --variant=minbase --aptopt="$apt_options" \
        --customize-hook='mkdir -p "$1/etc/ssl/certs"' \
        --customize-hook='upload /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt' \
        "$@" "$suite" - || status=$?
    rm -f "$apt_options"
    return "$status"
}

# debian:SUITE-slim
stand_in_debian() {
    local suite=${1#debian:}
    stand_ins_need_mmdebstrap || return 1
    (
        set -o pipefail
        stand_ins_debootstrap "${suite%-slim}" | docker import --change 'CMD ["bash"]' \
            --change "$STAND_IN_LABEL" - "$1" >/dev/null
    )
}

# rust:VERSION-SUITE, with the toolchain of the host
stand_in_rust() {
    local image=$1 version suite sysroot have name config=()
    version=${image#rust:}
    suite=${version#*-}
    version=${version%%-*}
    sysroot=$(rustc "+$version" --print sysroot 2>/dev/null || rustc --print sysroot) || return 1
    have=$("$sysroot/bin/rustc" --version | awk '{ print $2 }')
    if [[ $have != "$version".* && $have != "$version" ]]; then
        echo "cannot stand in for $image: the toolchain here is Rust $have, not $version" >&2
        return 1
    fi
    stand_ins_need_mmdebstrap || return 1

    # The settings that let cargo reach its registry from here have to hold in the image too.
    if [ -f "${CARGO_HOME:-$HOME/.cargo}/config.toml" ]; then
        config+=("--customize-hook=mkdir -p \"\$1/usr/local/cargo\"")
        config+=("--customize-hook=upload ${CARGO_HOME:-$HOME/.cargo}/config.toml /usr/local/cargo/config.toml")
    fi
    local changes=(--change "$STAND_IN_LABEL" --change 'ENV CARGO_HOME=/usr/local/cargo' --change 'CMD ["bash"]'
        --change 'ENV PATH=/usr/local/cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin')
    for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
        if [ -n "${!name:-}" ]; then
            changes+=(--change "ENV $name=${!name}")
        fi
    done
    (
        set -o pipefail
        stand_ins_debootstrap "$suite" --include=ca-certificates,gcc,libc6-dev,make "${config[@]}" \
            --customize-hook="tar -C '$sysroot' -c bin lib libexec | tar -C \"\$1/usr/local\" -x --no-same-owner" |
            docker import "${changes[@]}" - "$image" >/dev/null
    )
}

# nats:VERSION-scratch, laid out like the official one
stand_in_nats() {
    local image=$1 version binary
    version=${image#nats:}
    version=${version%-scratch}
    binary=$(nats_server_ensure "$version") || return 1
    tar -C "$(dirname "$binary")" --owner=0 --group=0 -c nats-server |
        docker import --change 'ENTRYPOINT ["/nats-server"]' --change 'EXPOSE 4222 8222 6222' \
            --change 'ENV PATH=/' --change "$STAND_IN_LABEL" - "$image" >/dev/null
}
