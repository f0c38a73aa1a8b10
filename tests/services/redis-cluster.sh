#!/usr/bin/env bash
# A real Redis Cluster on loopback.
#   tests/services/redis-cluster.sh start | stop | kill PORT | status | wipe
# `start` returns when all slots are served, and brings a node that was killed (`kill PORT` is kill -9) back as who it was.
# Settings are environment variables; give the other commands the same ones as `start`:
#   REDIS_CLUSTER_PORTS     7101 7102 7103    REDIS_CLUSTER_BUS_PORTS  each 10000 above
#   REDIS_CLUSTER_REPLICAS  0 per master      SERVICES_DATA, SERVICES_READY_SECONDS: see common.sh
# shellcheck source=tests/services/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

HERE="$(dirname "${BASH_SOURCE[0]}")"
read -r -a PORTS <<<"${REDIS_CLUSTER_PORTS:-7101 7102 7103}"
read -r -a BUS_PORTS <<<"${REDIS_CLUSTER_BUS_PORTS:-}"
REPLICAS="${REDIS_CLUSTER_REPLICAS:-0}"

main() {
    case "${1:-}" in
        start) start ;;
        stop | wipe) each "$1" ;;
        kill)
            [[ "${2:-}" =~ ^[0-9]+$ ]] || refuse "${2:-}" "kill PORT"
            REDIS_PORT="$2" "$HERE/redis.sh" kill
            ;;
        status) status ;;
        *) refuse "${1:-}" "start, stop, kill PORT, status and wipe" ;;
    esac
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
    if [[ "$(known_nodes "${PORTS[0]}")" == 1 ]]; then
        redis-cli --cluster create "${hosts[@]}" --cluster-replicas "$REPLICAS" --cluster-yes >/dev/null
    fi
    until_answers "$SERVICES_DATA/redis-${PORTS[0]}" is_whole
}

# A node notices after 2 s that another one is gone; a replica gets its copy at once.
start_node() { # port bus-port
    REDIS_PORT="$1" "$HERE/redis.sh" start --cluster-enabled yes --cluster-config-file nodes.conf --cluster-port "$2" \
        --cluster-node-timeout 2000 --repl-diskless-sync-delay 0
}

known_nodes() { # port
    redis-cli -p "$1" cluster info | sed -n 's/^cluster_known_nodes:\([0-9]*\).*/\1/p'
}

is_whole() {
    local port
    for port in "${PORTS[@]}"; do
        redis-cli -p "$port" cluster info | grep -q '^cluster_state:ok' || return 1
        [[ "$(known_nodes "$port")" == "${#PORTS[@]}" ]] || return 1
    done
}

status() {
    if is_whole; then
        echo "redis cluster on ${PORTS[*]}"
    else
        echo "redis cluster on ${PORTS[*]} does not run, or not all of it"
        return 1
    fi
}

each() { # command
    local port
    for port in "${PORTS[@]}"; do REDIS_PORT="$port" "$HERE/redis.sh" "$1"; done
}

main "$@"
