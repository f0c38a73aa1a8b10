# shellcheck shell=bash
# What the scripts of services share. Source it. Only ends processes that it started itself, by their recorded pids.

SERVICES_DATA="${SERVICES_DATA:-${TMPDIR:-/tmp}/dispatchd-services}"
READY_TIMEOUT_S="${READY_TIMEOUT_S:-120}"

fail() {
    echo "$(basename "$0"): $*" >&2
    exit 1
}

# sbin is not in everybody's path.
has() {
    PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1
}

as_root() {
    if ((EUID == 0)); then "$@"; else sudo "$@"; fi
}

# Installs Debian packages from the machine's own sources.
install_packages() {
    has apt-get || fail "please install $* first"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@" >&2 && return
    as_root apt-get update -q >&2
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@" >&2
}

# is_alive PIDFILE: the process whose pid the file holds runs.
is_alive() {
    local pid
    pid="$(cat "$1" 2>/dev/null)" && [[ -n "$pid" ]] && kill -0 "$pid" 2>/dev/null
}

# until_ready WHAT COMMAND…: waits until the command succeeds.
until_ready() {
    local what="$1" deadline=$((SECONDS + READY_TIMEOUT_S))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < deadline)) || fail "$what is not ready after $READY_TIMEOUT_S s"
        sleep 0.05
    done
}

# end PIDFILE [SIGNAL]: ends the process of that file and waits until it is gone.
end() {
    local pidfile="$1" signal="${2:-TERM}" pid
    if is_alive "$pidfile"; then
        pid="$(cat "$pidfile")"
        kill -CONT "$pid" 2>/dev/null || true
        kill "-$signal" "$pid" 2>/dev/null || true
        local deadline=$((SECONDS + 20))
        while kill -0 "$pid" 2>/dev/null; do
            ((SECONDS < deadline)) || { kill -KILL "$pid" 2>/dev/null || true; break; }
            sleep 0.05
        done
    fi
    rm -f "$pidfile"
}
