#!/usr/bin/env bash
# Two machines on one LAN that know nothing of each other: `starling node` on one,
# `starling infer --no-compute` on the other, and mDNS alone to bring them together.
#
# The machines are network namespaces, and so is the switch between them: its bridge has no way
# out, so nothing of this test reaches a real network.
#
#   sudo node/tests/mdns.sh [PATH-TO-STARLING]
#
# Skips itself, with exit code 0 and one line that says why, where namespaces can't be made.
set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
assets=$repository/node/assets
binary=${1:-}
switch=starling-$$-s
machines=(starling-$$-a starling-$$-b)
scratch=
node=

skip() {
    echo "mdns: skipped: $1"
    exit 0
}

fail() {
    echo "mdns: FAILED: $1" >&2
    for log in node.out node.err infer.out infer.err; do
        if [[ -s $scratch/$log ]]; then
            echo "--- $log" >&2
            tail -n 40 "$scratch/$log" >&2
        fi
    done
    exit 1
}

# Runs on every exit. Ends only what this script started.
clean_up() {
    if [[ -n $node ]] && kill "$node" 2>/dev/null; then
        for _ in {1..50}; do
            kill -0 "$node" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL "$node" 2>/dev/null || true
    fi
    for namespace in "${machines[@]}" "$switch"; do
        ip netns delete "$namespace" 2>/dev/null || true
    done
    [[ -z $scratch ]] || rm -rf "$scratch"
}

find_binary() {
    if [[ -z $binary ]]; then
        local metadata
        metadata=$(cd "$repository" && cargo metadata --format-version 1 --no-deps --locked)
        metadata=${metadata#*\"target_directory\":\"}
        binary=${metadata%%\"*}/debug/starling
    fi
    [[ -x $binary ]] || fail "there is no $binary; build it with \`cargo build -p starling-node\`"
}

# One machine: a cable to the switch, an address on the LAN, and no default route.
plug_in() {
    local namespace=$1 number=$2
    ip -n "$namespace" link set lo up
    ip -n "$namespace" link add eth0 type veth peer name "port$number" netns "$switch"
    ip -n "$switch" link set "port$number" master lan up
    ip -n "$namespace" address add "10.77.0.$number/24" dev eth0
    ip -n "$namespace" link set eth0 up
}

make_lan() {
    ip netns add "$switch" || return 1
    ip -n "$switch" link add lan type bridge || return 1
    # A bridge that snoops would wait for a multicast router that is not there.
    ip -n "$switch" link set lan type bridge mcast_snooping 0 || return 1
    ip -n "$switch" link set lan up || return 1
    local number=1
    for namespace in "${machines[@]}"; do
        ip netns add "$namespace" || return 1
        plug_in "$namespace" "$number" || return 1
        number=$((number + 1))
    done
}

wait_for() {
    local what=$1 pattern=$2 file=$3
    for _ in {1..300}; do
        ! grep -q "$pattern" "$file" || return 0
        kill -0 "$node" 2>/dev/null || fail "the node ended before it was $what"
        sleep 0.1
    done
    fail "the node was not $what within 30 s"
}

[[ $(uname -s) == Linux ]] || skip "needs Linux's network namespaces"
[[ $EUID -eq 0 ]] || skip "needs root, to make network namespaces"
command -v ip >/dev/null || skip "needs the command \`ip\` (package iproute2)"
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
scratch=$(mktemp -d)
find_binary
make_lan 2>"$scratch/lan.err" || skip "can't make network namespaces: $(tail -n 1 "$scratch/lan.err")"

: >"$scratch/node.out"
ip netns exec "${machines[0]}" "$binary" --json node --data "$scratch/provider" \
    >"$scratch/node.out" 2>"$scratch/node.err" &
node=$!
wait_for "calibrated" '"calibrated"' "$scratch/node.out"

# No --peer: only mDNS can tell it where the node is. No compute of its own: somebody else must.
ip netns exec "${machines[1]}" timeout 60 "$binary" --json infer "$assets/efficientnet-lite0.onnx" \
    --image "$assets/chelsea.jpg" --no-compute --wait 20 --data "$scratch/requester" \
    >"$scratch/infer.out" 2>"$scratch/infer.err" || fail "infer ended with exit code $?"

# Classes are listed best first. chelsea.jpg is a tabby (281), a tiger cat (282) or an Egyptian
# cat (285); which of the three is a matter of a few per cent.
class=$(grep -m 1 -o '"class": *[0-9]*' "$scratch/infer.out" | grep -o '[0-9]*$') || fail "no class in the output"
case $class in
    281 | 282 | 285) ;;
    *) fail "the top class is $class, which is no cat" ;;
esac
grep -q '"hosting"' "$scratch/node.out" || fail "the node computed nothing"
echo "mdns: passed: found by mDNS alone, computed by the other machine, top class $class (a cat)"
