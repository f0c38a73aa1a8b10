# shellcheck shell=bash
# What the scripts of real services share. Sourced; starts and stops nothing by itself.
# A service is a directory with a file `pid`: a process is ours only if that directory stands on its command line too.
set -euo pipefail

# Downloaded once and kept.
SERVICES_CACHE="${SERVICES_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/dispatchd/services}"
# Data, logs and pid files; may be deleted while nothing runs.
SERVICES_DATA="${SERVICES_DATA:-${TMPDIR:-/tmp}/dispatchd-services}"
# Longest wait for a service to answer or to end.
SERVICES_READY_SECONDS="${SERVICES_READY_SECONDS:-120}"

note() {
    printf '%s\n' "$*" >&2
}

fail() {
    note "${0##*/}: $*"
    exit 1
}

has() {
    PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1
}

as_root() {
    if ((EUID == 0)); then
        "$@"
    else
        sudo "$@"
    fi
}

# Debian packages, from wherever this machine is told to get them.
install_debian() {
    has apt-get || fail "please install $* first"
    note "installing $*"
    as_root apt-get update -q >/dev/null
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@" >/dev/null
}

# Prints the pid of the service in a directory, if it runs.
pid_of() { # directory
    local pid
    [[ -s "$1/pid" ]] || return 1
    pid="$(<"$1/pid")"
    [[ -r "/proc/$pid/cmdline" ]] || return 1
    tr '\0' ' ' <"/proc/$pid/cmdline" | grep -qF -- "$1" || return 1
    echo "$pid"
}

# Notes a process that was just begun, once it is the service's program: before that it is a shell with another command line.
record_pid() { # directory pid
    echo "$2" >"$1/pid"
    until pid_of "$1" >/dev/null || ! kill -0 "$2" 2>/dev/null; do
        sleep 0.02
    done
}

# Ends the service in a directory, with another signal than TERM if one is named, and waits for its end.
end_service() { # directory [signal]
    local pid deadline=$((SECONDS + 20))
    if ! pid="$(pid_of "$1")"; then
        rm -f "$1/pid"
        return 0
    fi
    # One that was stopped hears nothing else.
    kill -CONT "$pid" 2>/dev/null || true
    kill "-${2:-TERM}" "$pid" 2>/dev/null || true
    while pid_of "$1" >/dev/null; do
        ((SECONDS < deadline)) || kill -KILL "$pid" 2>/dev/null || true
        sleep 0.05
    done
    rm -f "$1/pid"
}

# Waits until a command succeeds; fails when the service in the directory ends before that.
until_answers() { # directory command...
    local directory="$1" deadline=$((SECONDS + SERVICES_READY_SECONDS))
    shift
    until "$@" >/dev/null 2>&1; do
        if ! pid_of "$directory" >/dev/null; then
            tail -n 20 "$directory/log" | cut -c 1-300 >&2
            fail "it ended while it started; its log is $directory/log"
        fi
        if ((SECONDS >= deadline)); then
            tail -n 20 "$directory/log" | cut -c 1-300 >&2
            fail "not ready after $SERVICES_READY_SECONDS s; its log is $directory/log"
        fi
        sleep 0.1
    done
}

# Waits until nobody listens there: a process that was killed keeps its sockets until its memory is gone.
until_free() { # address port
    local deadline=$((SECONDS + 20))
    while listens "$1" "$2"; do
        ((SECONDS < deadline)) || fail "another program listens on $1:$2"
        sleep 0.1
    done
}

# Whether somebody listens there.
listens() { # address port
    (exec 3<>"/dev/tcp/$1/$2") 2>/dev/null
}
