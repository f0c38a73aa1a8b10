#!/usr/bin/env bash
# A real Redis master, a replica and a Sentinel on loopback. The master's name is `mymaster`; it counts as down after a second.
#   tests/services/redis-sentinel.sh start | kill PORT | wipe
# `start` returns when the Sentinel knows the replica. Settings are environment variables; give the other commands the same:
#   REDIS_SENTINEL_PORTS  7121 7122 7123 (master, replica, Sentinel)    SERVICES_DATA, SERVICES_READY_SECONDS: see common.sh
# shellcheck source=tests/services/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

HERE="$(dirname "${BASH_SOURCE[0]}")"
read -r MASTER REPLICA SENTINEL <<<"${REDIS_SENTINEL_PORTS:-7121 7122 7123}"
DIRECTORY="$SERVICES_DATA/sentinel-$SENTINEL"

main() {
    case "${1:-}" in
        start) start ;;
        kill)
            [[ "${2:-}" =~ ^[0-9]+$ ]] || refuse "${2:-}" "kill PORT"
            REDIS_PORT="$2" "$HERE/redis.sh" kill
            ;;
        wipe) wipe ;;
        *) refuse "${1:-}" "start, kill PORT and wipe" ;;
    esac
}

start() {
    REDIS_PORT="$MASTER" "$HERE/redis.sh" start --repl-diskless-sync-delay 0
    REDIS_PORT="$REPLICA" "$HERE/redis.sh" start --replicaof 127.0.0.1 "$MASTER"
    until_answers "$SERVICES_DATA/redis-$REPLICA" is_replicated
    mkdir -p "$DIRECTORY"
    cat >"$DIRECTORY/sentinel.conf" <<EOF
port $SENTINEL
bind 127.0.0.1
dir $DIRECTORY
set-proc-title no
sentinel monitor mymaster 127.0.0.1 $MASTER 1
sentinel down-after-milliseconds mymaster 1000
sentinel failover-timeout mymaster 3000
EOF
    ln -sfn "$(readlink -f "$SERVICES_DATA/redis-$MASTER/redis-server")" "$DIRECTORY/redis-sentinel"
    launch "$DIRECTORY" "$DIRECTORY/redis-sentinel" "$DIRECTORY/sentinel.conf"
    until_answers "$DIRECTORY" sees_replica
}

is_replicated() {
    redis-cli -p "$REPLICA" info replication | grep -q '^master_link_status:up'
}

sees_replica() {
    redis-cli -p "$SENTINEL" sentinel master mymaster | grep -A1 '^num-slaves$' | grep -qx 1
}

wipe() {
    local port
    end_service "$DIRECTORY" KILL
    rm -rf "$DIRECTORY"
    for port in "$MASTER" "$REPLICA"; do REDIS_PORT="$port" "$HERE/redis.sh" wipe; done
}

main "$@"
