# shellcheck shell=bash
# What the scripts of real services share. Sourced; starts and stops nothing by itself.
# A service is a directory with a file `pid`: a process is ours only if that directory stands on its command line too.
set -euo pipefail

# Data, logs and pid files; may be deleted while nothing runs.
SERVICES_DATA="${SERVICES_DATA:-${TMPDIR:-/tmp}/dispatchd-services}"
# Longest wait for a service to answer.
SERVICES_READY_SECONDS="${SERVICES_READY_SECONDS:-120}"

note() {
    printf '%s\n' "$*" >&2
}

fail() {
    note "${0##*/}: $*"
    exit 1
}

# Nothing that this script knows. With what it knows.
refuse() { # argument what
    note "${0##*/}: there is no '$1'; it knows $2 (--help says more)"
    exit 2
}

# A script that is asked for help prints its first lines.
case "${1:-}" in
    -h | --help | help)
        sed -n '2,/^# shellcheck/{/^# shellcheck/!s/^# \{0,1\}//p}' "$0"
        exit 0
        ;;
esac

# sbin is not in everybody's path.
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

# Debian packages, from wherever this machine is told to get them. One after the other, whoever asks.
install_debian() { # package...
    local install=(env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@")
    has apt-get || fail "please install $* first"
    note "installing $*"
    (
        flock 9
        as_root "${install[@]}" >&2 && exit
        # The lists are missing, or too old.
        as_root apt-get update -q >&2
        as_root "${install[@]}" >&2
    ) 9>"${TMPDIR:-/tmp}/dispatchd-services.lock"
}

# Does what a script was asked for. The script says what `start` and `status` are, and which DIRECTORIES its processes have.
run_command() { # command [argument...]
    local command="${1:-}" directory
    shift || true
    case "$command" in
        start) start "$@" ;;
        status) status ;;
        stop) for directory in "${DIRECTORIES[@]}"; do end_service "$directory"; done ;;
        # One of them by its number, or all.
        kill)
            if (($# > 0)); then
                [[ $1 =~ ^[1-9][0-9]?$ ]] && (($1 <= ${#DIRECTORIES[@]})) || refuse "$1" "1 to ${#DIRECTORIES[@]}"
                DIRECTORIES=("${DIRECTORIES[$1 - 1]}")
            fi
            for directory in "${DIRECTORIES[@]}"; do end_service "$directory" KILL; done
            ;;
        wipe)
            for directory in "${DIRECTORIES[@]}"; do
                end_service "$directory" KILL
                rm -rf "$directory"
            done
            ;;
        *) refuse "$command" "${COMMANDS:-}start, stop, kill, status and wipe" ;;
    esac
}

# Prints the pid of the service in a directory, if it runs.
pid_of() { # directory
    local pid
    [[ -s "$1/pid" ]] || return 1
    pid="$(<"$1/pid")"
    [[ -r "/proc/$pid/cmdline" ]] || return 1
    tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -qF -- "$1" || return 1
    echo "$pid"
}

# Begins a service, whose log begins anew, and notes its process once it is the service's program: before that it is a
# shell with another command line.
launch() { # directory program...
    local directory="$1" pid
    shift
    nohup "$@" >"$directory/log" 2>&1 </dev/null &
    pid=$!
    echo "$pid" >"$directory/pid"
    until pid_of "$directory" >/dev/null || ! kill -0 "$pid" 2>/dev/null; do
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
        pid_of "$directory" >/dev/null || fail_with_log "$directory" "it ended while it started"
        ((SECONDS < deadline)) || fail_with_log "$directory" "not ready after $SERVICES_READY_SECONDS s"
        sleep 0.05
    done
}

fail_with_log() { # directory what
    tail -n 20 "$1/log" | cut -c 1-300 >&2
    fail "$2; its log is $1/log"
}
