#!/usr/bin/env bash
# A real Cassandra node on loopback, of the jars that Maven resolves.
#   tests/services/cassandra.sh get | start | stop | kill | status | wipe
# `get` only installs what `start` needs.
# `start` returns when CQL is answered, and brings a node that was killed (`kill` is kill -9) back with its data. `wipe` stops
# it and deletes its data. Ports are not the usual ones, so that another Cassandra of the machine is left alone. Settings
# are environment variables; give the other commands the same ones as `start`:
#   CASSANDRA_ADDRESS  127.0.0.1   CASSANDRA_PORT     19042 (CQL)   CASSANDRA_STORAGE_PORT  17000
#   CASSANDRA_HEAP     512m        CASSANDRA_VERSION  5.0.9         CASSANDRA_JAVA  more flags of java; by default those
#   that start soon and run slowly  SERVICES_CACHE     where jars are kept     SERVICES_DATA, SERVICES_READY_SECONDS: see common.sh
# shellcheck source=tests/services/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# Downloaded once and kept.
SERVICES_CACHE="${SERVICES_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/dispatchd/services}"
CASSANDRA_ADDRESS="${CASSANDRA_ADDRESS:-127.0.0.1}"
CASSANDRA_PORT="${CASSANDRA_PORT:-19042}"
CASSANDRA_STORAGE_PORT="${CASSANDRA_STORAGE_PORT:-17000}"
CASSANDRA_HEAP="${CASSANDRA_HEAP:-512m}"
CASSANDRA_VERSION="${CASSANDRA_VERSION:-5.0.9}"
CASSANDRA_JAVA="${CASSANDRA_JAVA--XX:TieredStopAtLevel=1}"
DIRECTORY="$SERVICES_DATA/cassandra-$CASSANDRA_ADDRESS-$CASSANDRA_PORT"
JARS="$SERVICES_CACHE/cassandra-$CASSANDRA_VERSION"

main() {
    case "${1:-}" in
        get)
            get_java
            get_jars
            ;;
        start) start ;;
        stop) end_service "$DIRECTORY" ;;
        kill) end_service "$DIRECTORY" KILL ;;
        status) status ;;
        wipe)
            end_service "$DIRECTORY" KILL
            rm -rf "$DIRECTORY"
            ;;
        *) fail "usage: $0 get|start|stop|kill|status|wipe" ;;
    esac
}

start() {
    get_java
    get_jars
    if ! pid_of "$DIRECTORY" >/dev/null; then
        until_free "$CASSANDRA_ADDRESS" "$CASSANDRA_PORT"
        configure
        begin
    fi
    until_answers "$DIRECTORY" is_up
    status
}

# The log is that of this start: launch begins it anew.
is_up() {
    grep -q 'Startup complete' "$DIRECTORY/log" && listens "$CASSANDRA_ADDRESS" "$CASSANDRA_PORT"
}

status() {
    local pid
    if pid="$(pid_of "$DIRECTORY")"; then
        echo "cassandra $CASSANDRA_VERSION on $CASSANDRA_ADDRESS:$CASSANDRA_PORT, pid $pid, log $DIRECTORY/log"
    else
        echo "cassandra on $CASSANDRA_ADDRESS:$CASSANDRA_PORT does not run"
        return 1
    fi
}

get_java() {
    has java || install_debian openjdk-17-jre-headless
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

# One node that is its whole cluster: it has all tokens and waits for nobody.
configure() {
    mkdir -p "$DIRECTORY/triggers"
    cat >"$DIRECTORY/cassandra.yaml" <<EOF
cluster_name: dispatchd-tests
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
endpoint_snitch: SimpleSnitch
num_tokens: 1
initial_token: "0"
auto_bootstrap: false
seed_provider:
  - class_name: org.apache.cassandra.locator.SimpleSeedProvider
    parameters:
      - seeds: "$CASSANDRA_ADDRESS"
listen_address: $CASSANDRA_ADDRESS
storage_port: $CASSANDRA_STORAGE_PORT
rpc_address: $CASSANDRA_ADDRESS
native_transport_port: $CASSANDRA_PORT
# Off when it is not named.
start_native_transport: true
data_file_directories:
  - $DIRECTORY/data
commitlog_directory: $DIRECTORY/commitlog
hints_directory: $DIRECTORY/hints
saved_caches_directory: $DIRECTORY/saved_caches
cdc_raw_directory: $DIRECTORY/cdc_raw
# Acknowledged is written: the tests kill it.
commitlog_sync: batch
commitlog_segment_size: 8MiB
paxos_variant: v2
EOF
    # Without it everything is logged, at DEBUG.
    cat >"$DIRECTORY/logback.xml" <<'EOF'
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

begin() {
    local openings flags
    read -r -a flags <<<"$CASSANDRA_JAVA"
    mapfile -t openings < <(java_openings)
    # Not in the foreground it closes its output before it says that it is up.
    launch "$DIRECTORY" java -Xms"$CASSANDRA_HEAP" -Xmx"$CASSANDRA_HEAP" -Xss256k -XX:+UseSerialGC \
        -XX:+ExitOnOutOfMemoryError "${flags[@]}" "-javaagent:$JARS/jamm-0.4.0.jar" "${openings[@]}" \
        -Dcassandra-foreground=true "-Dcassandra.config=file://$DIRECTORY/cassandra.yaml" \
        "-Dcassandra.storagedir=$DIRECTORY" "-Dcassandra.triggers_dir=$DIRECTORY/triggers" \
        "-Dlogback.configurationFile=$DIRECTORY/logback.xml" \
        -Dcassandra.skip_wait_for_gossip_to_settle=0 -Dcassandra.ring_delay_ms=1000 \
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

main "$@"
