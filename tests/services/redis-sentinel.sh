#!/usr/bin/env bash
# A master, a replica and a Sentinel on the loopback interface, for tests: redis-sentinel.sh start|wipe|kill PORT
#
# REDIS_SENTINEL_PORTS ("7121 7122 7123": master, replica, Sentinel), SERVICES_DATA, READY_TIMEOUT_S. The master's name is
# `mymaster`; it counts as down after a second.
set -euo pipefail
HERE="$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=tests/services/common.sh
source "$HERE/common.sh"

read -r MASTER REPLICA SENTINEL <<<"${REDIS_SENTINEL_PORTS:-7121 7122 7123}"
DIR="$SERVICES_DATA/sentinel-$SENTINEL"

start() {
    REDIS_PORT="$MASTER" "$HERE/redis.sh" start --repl-diskless-sync-delay 0
    REDIS_PORT="$REPLICA" "$HERE/redis.sh" start --replicaof 127.0.0.1 "$MASTER"
    until_ready "the replica" is_replicated
    mkdir -p "$DIR"
    cat >"$DIR/sentinel.conf" <<CONF
port $SENTINEL
bind 127.0.0.1
dir $DIR
daemonize yes
pidfile $DIR/pid
logfile $DIR/log
sentinel monitor mymaster 127.0.0.1 $MASTER 1
sentinel down-after-milliseconds mymaster 1000
sentinel failover-timeout mymaster 3000
CONF
    local program
    program="$(command -v redis-server || readlink -f "$SERVICES_DATA/redis-server")"
    ln -sfn "$program" "$DIR/redis-sentinel"
    "$DIR/redis-sentinel" "$DIR/sentinel.conf" >/dev/null
    until_ready "the Sentinel" sees_replica
}

is_replicated() {
    redis-cli -p "$REPLICA" info replication | grep -q '^master_link_status:up'
}

sees_replica() {
    redis-cli -p "$SENTINEL" sentinel master mymaster | grep -A1 '^num-slaves$' | grep -qx 1
}

case "${1:-}" in
    start) start ;;
    kill) REDIS_PORT="${2:?which port}" "$HERE/redis.sh" kill ;;
    wipe)
        end "$DIR/pid" KILL
        rm -rf "$DIR"
        for port in "$MASTER" "$REPLICA"; do REDIS_PORT="$port" "$HERE/redis.sh" wipe; done
        ;;
    *) fail "usage: start|kill PORT|wipe" ;;
esac
