#!/usr/bin/env bash
# Gives each receive queue of a network card a core of its own, in turn over the cores given, and keeps its packets there.
# usage: sudo tuning/nic-irq.sh CARD [FIRST_CORE-LAST_CORE]     e.g. tuning/nic-irq.sh eth0 0-15
set -euo pipefail

if (($# < 1)); then
    sed -n '3s/^# //p' "${BASH_SOURCE[0]}" >&2
    exit 2
fi
card="$1"
range="${2:-0-$(($(nproc --all) - 1))}"
first="${range%-*}"
last="${range#*-}"
irqs="/sys/class/net/$card/device/msi_irqs"

if [[ ! -d "$irqs" ]]; then
    echo "$card has no interrupts of its own (a virtual card?): nothing to do" >&2
    exit 1
fi
# It would move them again.
if systemctl is-active --quiet irqbalance 2>/dev/null; then
    systemctl disable --now irqbalance
    echo "irqbalance is off now"
fi
core="$first"
for irq in "$irqs"/*; do
    number="${irq##*/}"
    # A card's interrupt for its own affairs may refuse; queues do not.
    if echo "$core" >"/proc/irq/$number/smp_affinity_list" 2>/dev/null; then
        echo "interrupt $number: core $core"
        core=$((core < last ? core + 1 : first))
    fi
done
