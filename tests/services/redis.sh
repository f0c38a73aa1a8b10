#!/usr/bin/env bash
# One Redis server on the loopback interface, for tests: redis.sh start|stop|kill|status|wipe
#
# REDIS_PORT (7100), SERVICES_DATA (where data, log and pid file go), READY_TIMEOUT_S. Nothing is written to disk by the
# server itself: one that was killed comes back empty, as the tests need it. `start` installs what is missing from the
# machine's Debian packages: of redis-tools alone, whose program is the server under another name; the package of the
# server would start one of its own.
set -euo pipefail
# shellcheck source=tests/services/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

PORT="${REDIS_PORT:-7100}"
DIR="$SERVICES_DATA/redis-$PORT"
PIDFILE="$DIR/pid"

# The program plays the role that its name says.
server() {
    if has redis-server; then
        command -v redis-server
        return
    fi
    has redis-check-rdb || install_packages redis-tools
    mkdir -p "$SERVICES_DATA"
    ln -sfn "$(command -v redis-check-rdb)" "$SERVICES_DATA/redis-server"
    echo "$SERVICES_DATA/redis-server"
}

start() {
    if is_alive "$PIDFILE"; then return; fi
    local program
    program="$(server)"
    mkdir -p "$DIR"
    "$program" --port "$PORT" --bind 127.0.0.1 --dir "$DIR" --daemonize yes --pidfile "$PIDFILE" \
        --logfile "$DIR/log" --save "" --appendonly no "$@" >/dev/null
    until_ready "Redis on $PORT" answers
}

answers() {
    [[ "$(redis-cli -p "$PORT" ping 2>/dev/null)" == PONG ]] && is_alive "$PIDFILE"
}

case "${1:-}" in
    start) shift; start "$@" ;;
    stop) end "$PIDFILE" ;;
    kill) end "$PIDFILE" KILL ;;
    status) if answers; then echo "up, pid $(cat "$PIDFILE")"; else echo down; exit 1; fi ;;
    wipe) end "$PIDFILE" KILL; rm -rf "$DIR" ;;
    *) fail "usage: start|stop|kill|status|wipe" ;;
esac
