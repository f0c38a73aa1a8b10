#!/usr/bin/env bash
# A Redis Cluster on the loopback interface, for tests: redis-cluster.sh start|stop|kill PORT|status|wipe
#
# REDIS_CLUSTER_PORTS ("7101 7102 7103"), REDIS_CLUSTER_BUS_PORTS (each 10000 above), REDIS_CLUSTER_REPLICAS (0 per master),
# SERVICES_DATA, READY_TIMEOUT_S.
# `kill PORT` is kill -9; `start` brings that node back as who it was.
set -euo pipefail
HERE="$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=tests/services/common.sh
source "$HERE/common.sh"

read -r -a PORTS <<<"${REDIS_CLUSTER_PORTS:-7101 7102 7103}"
read -r -a BUS_PORTS <<<"${REDIS_CLUSTER_BUS_PORTS:-}"
REPLICAS="${REDIS_CLUSTER_REPLICAS:-0}"

# A node notices after 2 s that another one is gone; a replica gets its copy at once.
start_node() {
    REDIS_PORT="$1" "$HERE/redis.sh" start --cluster-enabled yes --cluster-config-file nodes.conf --cluster-port "$2" \
        --cluster-node-timeout 2000 --repl-diskless-sync-delay 0
}

is_whole() {
    local port
    for port in "${PORTS[@]}"; do
        redis-cli -p "$port" cluster info | grep -q '^cluster_state:ok' || return 1
        [[ "$(redis-cli -p "$port" cluster info | sed -n 's/^cluster_known_nodes:\([0-9]*\).*/\1/p')" == "${#PORTS[@]}" ]] || return 1
    done
}

start() {
    local index port bus hosts=()
    for index in "${!PORTS[@]}"; do
        port="${PORTS[$index]}"
        bus="${BUS_PORTS[$index]:-$((port + 10000))}"
        start_node "$port" "$bus"
        hosts+=("127.0.0.1:$port@$bus")
    done
    # Whoever was in a cluster already finds it again.
    if [[ "$(redis-cli -p "${PORTS[0]}" cluster info | sed -n 's/^cluster_known_nodes:\([0-9]*\).*/\1/p')" == 1 ]]; then
        redis-cli --cluster create "${hosts[@]}" --cluster-replicas "$REPLICAS" --cluster-yes >/dev/null
    fi
    until_ready "the Redis Cluster" is_whole
}

each() {
    local port
    for port in "${PORTS[@]}"; do REDIS_PORT="$port" "$HERE/redis.sh" "$1"; done
}

case "${1:-}" in
    start) start ;;
    stop | wipe) each "$1" ;;
    kill) REDIS_PORT="${2:?which port}" "$HERE/redis.sh" kill ;;
    status) if is_whole; then echo up; else echo down; exit 1; fi ;;
    *) fail "usage: start|stop|kill PORT|status|wipe" ;;
esac
