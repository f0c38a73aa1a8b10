#!/usr/bin/env bash
# A real Redis server on loopback.
#   tests/services/redis.sh start [OPTION VALUE...] | stop | kill | status | wipe
# `start` returns when it answers. Nothing is written to disk by the server itself: one that was killed (`kill` is kill -9)
# comes back empty, as the tests need it. `wipe` stops it and deletes its directory. Settings are environment variables:
#   REDIS_PORT  7100    SERVICES_DATA, SERVICES_READY_SECONDS: see common.sh
# What is missing is installed, of Debian's redis-tools alone, whose program is the server under another name; the package
# of the server would start one of its own.
# shellcheck source=tests/services/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

REDIS_PORT="${REDIS_PORT:-7100}"
DIRECTORY="$SERVICES_DATA/redis-$REDIS_PORT"
DIRECTORIES=("$DIRECTORY")

start() {
    pid_of "$DIRECTORY" >/dev/null && return
    has redis-server || has redis-check-rdb || install_debian redis-tools
    mkdir -p "$DIRECTORY"
    # The program plays the role that its name says, and keeps its command line, by which it is known.
    ln -sfn "$(PATH="$PATH:/usr/sbin:/sbin" command -v redis-server || command -v redis-check-rdb)" "$DIRECTORY/redis-server"
    launch "$DIRECTORY" "$DIRECTORY/redis-server" --port "$REDIS_PORT" --bind 127.0.0.1 --dir "$DIRECTORY" \
        --set-proc-title no --save "" --appendonly no "$@"
    until_answers "$DIRECTORY" answers
}

answers() {
    [[ "$(redis-cli -p "$REDIS_PORT" ping 2>/dev/null)" == PONG ]]
}

status() {
    local pid
    if pid="$(pid_of "$DIRECTORY")" && answers; then
        echo "redis on 127.0.0.1:$REDIS_PORT, pid $pid, log $DIRECTORY/log"
    else
        echo "redis on 127.0.0.1:$REDIS_PORT does not run"
        return 1
    fi
}

run_command "$@"
