# Every habit of this project, named once. `just` lists them.

default:
    @just --list

# What CI runs, whole
ci:
    .ci/run

# Rewrite the sources in the house format
fmt:
    cargo fmt --all

# Format and lints, without changing anything
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings

# All tests: just test, or with --quick or --long
test *options:
    ./test {{options}}

# One test target: just target config_sources
target name *filter:
    cargo test --test {{name}} {{filter}}

# Fuzz targets: just fuzz --seconds 10 ws_frames
fuzz *options:
    fuzz/run {{options}}

# Models of the rings; that they find every weakening; the rings under Miri
rings:
    cargo test -p dispatchd-rings
    tests/rings/weaken
    tests/rings/miri

# Simulated nodes and fleets: just sim run --seeds 1..300, just sim repeat 17
sim *options:
    cargo run --profile sim -p dispatchd-sim -- {{options}}

# Planted bugs that the simulator must find
bugs *options:
    tests/sim/bugs/run {{options}}

# Autobahn, schemathesis and AsyncAPI's parser against a real node
conformance *options:
    tests/conformance/run {{options}}

# Advisories, licenses, bans, sources of dependencies (needs cargo-deny)
deny:
    cargo deny check

# The documents of the code, ours only
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# Real trips, live drivers, a crash in the middle, an audited end
demo *options:
    cargo run --release -- demo {{options}}

# A node on this machine
serve *options:
    cargo run --release -- serve {{options}}

# Figures beside their goals
bench scenario="all" *options:
    cargo build --release --workspace
    cargo run --release -p dispatchd-bench -- {{scenario}} {{options}}

# Put the generated table of settings into the README
settings:
    cargo run --quiet -- config show --format markdown > target/settings.md
    sed -i -e '/<!-- settings:begin -->/,/<!-- settings:end -->/{//!d}' -e '/<!-- settings:begin -->/r target/settings.md' README.md

# Check the unit and the kernel settings
systemd:
    systemd-analyze verify systemd/*.service
    systemd-analyze security --offline=true systemd/dispatchd.service

# Print the drop-in and the table of tuning/ from the program's table
tuning:
    cargo run --quiet -- tune show --format sysctl > tuning/sysctl.d/90-dispatchd.conf
    cargo run --quiet -- tune show --format markdown > target/tuning.md
    sed -i -e '/<!-- table:begin -->/,/<!-- table:end -->/{//!d}' -e '/<!-- table:begin -->/r target/tuning.md' tuning/README.md
