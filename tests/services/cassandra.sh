#!/usr/bin/env bash
# Real Cassandra nodes on loopback, of the jars that Maven resolves.
#   tests/services/cassandra.sh get | start | stop | kill [N] | status | wipe
# `get` only installs what `start` needs.
# `start` returns when CQL is answered and, of several nodes, each sees the others; it brings nodes that were killed (`kill` is
# kill -9, of one node or of all) back with their data. `wipe` stops them and deletes their data. Ports are not the usual ones, so
# that another Cassandra of the machine is left alone. Settings are environment variables; give the other commands the same ones
# as `start`:
#   CASSANDRA_NODES    1, or 3 on successive addresses, each with a third of the ring
#   CASSANDRA_ADDRESS  127.0.0.1   CASSANDRA_PORT     19042 (CQL)   CASSANDRA_STORAGE_PORT  17000
#   CASSANDRA_TOLD     what clients are told instead of CASSANDRA_ADDRESS, for proxies in between
#   CASSANDRA_HEAP     512m        CASSANDRA_VERSION  5.0.9         CASSANDRA_JAVA  more flags of java; by default those
#   that start soon and run slowly  SERVICES_CACHE     where jars are kept     SERVICES_DATA, SERVICES_READY_SECONDS: see common.sh
#   CASSANDRA_COMMITLOG  batch: acknowledged is on the disk, so that a killed node has it; or periodic, which is Cassandra's own default
# shellcheck source=tests/services/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# Downloaded once and kept.
SERVICES_CACHE="${SERVICES_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/dispatchd/services}"
CASSANDRA_NODES="${CASSANDRA_NODES:-1}"
CASSANDRA_ADDRESS="${CASSANDRA_ADDRESS:-127.0.0.1}"
CASSANDRA_TOLD="${CASSANDRA_TOLD:-$CASSANDRA_ADDRESS}"
CASSANDRA_PORT="${CASSANDRA_PORT:-19042}"
CASSANDRA_STORAGE_PORT="${CASSANDRA_STORAGE_PORT:-17000}"
CASSANDRA_HEAP="${CASSANDRA_HEAP:-512m}"
CASSANDRA_VERSION="${CASSANDRA_VERSION:-5.0.9}"
CASSANDRA_JAVA="${CASSANDRA_JAVA--XX:TieredStopAtLevel=1}"
CASSANDRA_COMMITLOG="${CASSANDRA_COMMITLOG:-batch}"
JARS="$SERVICES_CACHE/cassandra-$CASSANDRA_VERSION"
# Where each node's part of the ring begins. It is kept with the data, so rings of other sizes have other directories.
case "$CASSANDRA_NODES" in
    1) TOKENS=(0) ;;
    3) TOKENS=(-9223372036854775808 -3074457345618258603 3074457345618258602) ;;
    *) fail "CASSANDRA_NODES is $CASSANDRA_NODES, and can be 1 or 3" ;;
esac

# The address of a node, counted from an address of the first one.
address() { # first number
    echo "${1%.*}.$((${1##*.} + $2 - 1))"
}

ADDRESSES=() DIRECTORIES=()
for ((number = 1; number <= CASSANDRA_NODES; number++)); do
    ADDRESSES+=("$(address "$CASSANDRA_ADDRESS" "$number")")
    DIRECTORIES+=("$SERVICES_DATA/cassandra-$CASSANDRA_NODES-${ADDRESSES[-1]}-$CASSANDRA_PORT")
done

get() {
    get_java
    get_jars
}

start() {
    local number
    get
    for ((number = 1; number <= CASSANDRA_NODES; number++)); do
        if ! pid_of "${DIRECTORIES[number - 1]}" >/dev/null; then
            until_free "${ADDRESSES[number - 1]}" "$CASSANDRA_PORT"
            configure "$number"
            begin "${DIRECTORIES[number - 1]}"
        fi
    done
    for ((number = 1; number <= CASSANDRA_NODES; number++)); do
        until_answers "${DIRECTORIES[number - 1]}" is_up "$number"
    done
    status
}

# The log is that of this start: launch begins it anew. CQL is answered before the other nodes are known to be there.
is_up() { # number
    local other log="${DIRECTORIES[$1 - 1]}/log"
    grep -q 'Startup complete' "$log" && listens "${ADDRESSES[$1 - 1]}" "$CASSANDRA_PORT" || return 1
    for other in "${ADDRESSES[@]}"; do
        [[ "$other" == "${ADDRESSES[$1 - 1]}" ]] || grep -q "/$other:$CASSANDRA_STORAGE_PORT is now UP" "$log" || return 1
    done
}

status() {
    local number pid all=0
    for ((number = 1; number <= CASSANDRA_NODES; number++)); do
        if pid="$(pid_of "${DIRECTORIES[number - 1]}")"; then
            echo "cassandra $CASSANDRA_VERSION on ${ADDRESSES[number - 1]}:$CASSANDRA_PORT, pid $pid, log ${DIRECTORIES[number - 1]}/log"
        else
            echo "cassandra on ${ADDRESSES[number - 1]}:$CASSANDRA_PORT does not run"
            all=1
        fi
    done
    return "$all"
}

# Cassandra 5.0 is made for Java 17; 21 runs it where it may set a security manager (see `begin`), and since 24 no Java lets it.
get_java() {
    local version
    java_is_right && return
    for version in 17 21; do
        install_debian "openjdk-$version-jre-headless" || continue
        java_is_right && return
    done
    fail "Java 17 or 21 is needed: it is not in the path, and cannot be installed here"
}

java_is_right() {
    local version
    version="$(java -version 2>&1)" && version="${version#*\"}" && ((${version%%[.\"]*} >= 17 && ${version%%[.\"]*} < 24))
}

# Cassandra and what it needs, as Maven resolves it. The mark is made last: what was interrupted is done again.
get_jars() {
    local work
    [[ -e "$JARS/complete" ]] && return
    has mvn || install_debian maven
    note "resolving Cassandra $CASSANDRA_VERSION"
    mkdir -p "$JARS"
    work="$(mktemp -d)"
    cat >"$work/pom.xml" <<EOF
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>dispatchd.tests</groupId><artifactId>cassandra</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.cassandra</groupId><artifactId>cassandra-all</artifactId><version>$CASSANDRA_VERSION</version>
    </dependency>
    <!-- The agent that measures objects. -->
    <dependency><groupId>com.github.jbellis</groupId><artifactId>jamm</artifactId><version>0.4.0</version></dependency>
  </dependencies>
</project>
EOF
    mvn -q -B -f "$work/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$JARS" >&2
    rm -rf "$work"
    touch "$JARS/complete"
}

# The ring is fixed and every node a seed: nobody asks for a place in it or waits, and all can start at once.
configure() { # number
    local directory="${DIRECTORIES[$1 - 1]}" seeds
    seeds="$(IFS=, && echo "${ADDRESSES[*]}")"
    mkdir -p "$directory/triggers"
    cat >"$directory/cassandra.yaml" <<EOF
cluster_name: dispatchd-tests
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
endpoint_snitch: SimpleSnitch
num_tokens: 1
initial_token: "${TOKENS[$1 - 1]}"
auto_bootstrap: false
seed_provider:
  - class_name: org.apache.cassandra.locator.SimpleSeedProvider
    parameters:
      - seeds: "$seeds"
listen_address: ${ADDRESSES[$1 - 1]}
storage_port: $CASSANDRA_STORAGE_PORT
rpc_address: ${ADDRESSES[$1 - 1]}
broadcast_rpc_address: $(address "$CASSANDRA_TOLD" "$1")
native_transport_port: $CASSANDRA_PORT
# Off when it is not named.
start_native_transport: true
data_file_directories:
  - $directory/data
commitlog_directory: $directory/commitlog
hints_directory: $directory/hints
saved_caches_directory: $directory/saved_caches
cdc_raw_directory: $directory/cdc_raw
commitlog_sync: $CASSANDRA_COMMITLOG
$([[ "$CASSANDRA_COMMITLOG" != periodic ]] || echo "commitlog_sync_period: 10s")
commitlog_segment_size: 8MiB
paxos_variant: v2
EOF
    # Without it everything is logged, at DEBUG.
    cat >"$directory/logback.xml" <<'EOF'
<configuration>
  <appender name="stdout" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%d{ISO8601} %-5level %logger{0} - %msg%n</pattern></encoder>
  </appender>
  <root level="INFO"><appender-ref ref="stdout"/></root>
</configuration>
EOF
}

# What Cassandra reaches into and newer Javas keep closed otherwise.
java_openings() {
    local name
    for name in java.base/java.lang.ref java.base/jdk.internal.misc java.base/jdk.internal.ref java.sql/java.sql \
        java.management.rmi/com.sun.jmx.remote.internal.rmi java.rmi/sun.rmi.registry java.rmi/sun.rmi.server \
        jdk.attach/sun.tools.attach jdk.compiler/com.sun.tools.javac.file jdk.unsupported/sun.misc; do
        echo "--add-exports=$name=ALL-UNNAMED"
    done
    for name in java.base/java.io java.base/java.lang java.base/java.lang.module java.base/java.lang.reflect \
        java.base/java.util java.base/jdk.internal.loader java.base/jdk.internal.math java.base/jdk.internal.module \
        java.base/jdk.internal.ref java.base/jdk.internal.reflect java.base/jdk.internal.util.jar java.base/sun.nio.ch \
        jdk.compiler/com.sun.tools.javac jdk.management/com.sun.management.internal; do
        echo "--add-opens=$name=ALL-UNNAMED"
    done
}

begin() { # directory
    local openings flags directory="$1"
    read -r -a flags <<<"$CASSANDRA_JAVA"
    mapfile -t openings < <(java_openings)
    # Not in the foreground it closes its output before it says that it is up. Nodes that start together make their own tables at
    # once, and would ask each other only after a minute for what they missed.
    launch "$directory" java -Xms"$CASSANDRA_HEAP" -Xmx"$CASSANDRA_HEAP" -Xss256k -XX:+UseSerialGC \
        -XX:+ExitOnOutOfMemoryError "${flags[@]}" "-javaagent:$JARS/jamm-0.4.0.jar" "${openings[@]}" \
        -Djava.security.manager=allow -Dcassandra-foreground=true "-Dcassandra.config=file://$directory/cassandra.yaml" \
        "-Dcassandra.storagedir=$directory" "-Dcassandra.triggers_dir=$directory/triggers" \
        "-Dlogback.configurationFile=$directory/logback.xml" \
        -Dcassandra.skip_wait_for_gossip_to_settle=0 -Dcassandra.ring_delay_ms=1000 \
        -Dcassandra.migration_delay_ms=500 -Dcassandra.schema_pull_interval_ms=1000 \
        -Dcassandra.superuser_setup_delay_ms=0 \
        -cp "$JARS/*" org.apache.cassandra.service.CassandraDaemon
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

COMMANDS="get, "
if [[ "${1:-}" == get ]]; then
    get
else
    run_command "$@"
fi
