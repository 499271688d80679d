#!/usr/bin/env bash
# two_nodes.sh COMMAND_A COMMAND_B: two TIPC nodes joined by a cable; each command is one argument, for bash.
#
# The nodes are network namespaces, the cable a veth, so this runs where TIPC is and as root: guest.sh two_nodes.sh 'A' 'B'. B is
# started first, in the background, and has 10 s to end after A has. What crossed the cable is said on stderr.
#
# The exit status is A's, or B's if A's is 0; 124 for a B that had to be killed.
#
# The kernel sees that both nodes are its own and would move messages from one to the other past the cable. It knows by a hash
# of its own in word 13 of the messages by which nodes discover each other: that word is wiped off on the way out.
# Source: tipc_disc_init_msg in net/tipc/discover.c, tipc_node_check_dest and tipc_lxc_xmit in net/tipc/node.c.
set -euo pipefail
[ $# = 2 ] || { sed -n '2s/^# //p' "$0" >&2; exit 2; }
PATH=$PATH:/usr/sbin:/sbin

nodes="a$$ b$$"

leave() {
    for node in $nodes; do
        ip netns pids "$node" | xargs -r kill -KILL || true
        ip netns del "$node"
    done 2>/dev/null
}
trap leave EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

on() { # NODE COMMAND...
    local node=$1
    shift
    ip netns exec "$node" "$@"
}

sent_by() { # NODE: the bytes that it has put on the cable
    on "$1" cat /sys/class/net/cable/statistics/tx_bytes
}

modprobe -a sch_ingress cls_u32 act_pedit
for node in $nodes; do
    ip netns add "$node"
    ip -n "$node" link set lo up
done
ip link add cable netns "a$$" type veth peer name cable netns "b$$"
number=1
for node in $nodes; do
    ip -n "$node" link set cable up
    on "$node" tc qdisc add dev cable clsact
    # 0x88ca is TIPC; user 13 of its header (bits 25 to 28 of the first word) is discovery
    on "$node" tc filter add dev cable egress protocol 0x88ca u32 match u32 0x1a000000 0x1e000000 at 0 \
        action pedit munge offset 52 u32 set 0
    on "$node" tipc node set address "1.1.$number"
    on "$node" tipc bearer enable media eth device cable
    number=$((number + 1))
done
for _ in {1..100}; do
    on "a$$" tipc link list | grep -q 'cable.*: up' && break
    sleep 0.1
done
on "a$$" tipc link list | grep -q 'cable.*: up' || { echo "no link within 10 s" >&2; exit 1; }

on "b$$" bash -c "$2" &
b_pid=$!
status_a=0
on "a$$" bash -c "$1" || status_a=$?
late=1
for _ in {1..100}; do
    kill -0 "$b_pid" 2>/dev/null || { late=0 && break; }
    sleep 0.1
done
status_b=124
if [ $late = 0 ]; then
    status_b=0
    wait "$b_pid" || status_b=$?
fi

printf 'node a: status %d, %d bytes sent over the cable; node b: status %d, %d bytes\n' \
    "$status_a" "$(sent_by "a$$")" "$status_b" "$(sent_by "b$$")" >&2
[ "$status_a" = 0 ] || exit "$status_a"
exit "$status_b"
