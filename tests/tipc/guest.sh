#!/usr/bin/env bash
# guest.sh COMMAND [ARGUMENT...]: run COMMAND where AF_TIPC works.
#
# On this kernel if it has TIPC; else in a user-mode Linux (a kernel that runs as a process, from Debian's package) that boots
# in two seconds over the host's file system. Either way COMMAND has this directory, PATH and environment, an empty
# /dev/shm and /run (and /tmp, unless it is started there), and a network of its own with the loopback up. In user-mode Linux it is
# root, / can be written to but what is written vanishes, and there is one processor; tipc and veth are loaded.
#
# Output is live, input is /dev/null. The exit status is COMMAND's, or
#    77  no TIPC to be had here; why is said on stderr
#   125  the guest died or took longer than TIPC_DEADLINE (600 s)
#
# Nothing outlives this script, not even when it is killed: everything runs in namespaces (of processes, mounts and networks)
# that the kernel takes apart when their first process goes, and files lie only in memory mounted there. So any number of
# guests may run at a time.
#
# TIPC_MEMORY (1G) is what user-mode Linux may use. TIPC_WAY=host or =uml insists on that way.
set -uo pipefail
PATH=$PATH:/usr/sbin:/sbin
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
shim=$here/../../build/tipc/xsave.so
export TIPC_DEADLINE=${TIPC_DEADLINE:-600} TIPC_MEMORY=${TIPC_MEMORY:-1G}

skip() {
    printf 'no TIPC here: %s\n' "$1" >&2
    exit 77
}

host_has_tipc() {
    modprobe -q tipc 2>/dev/null
    grep -q '^TIPC ' /proc/net/protocols
}

require_uml() {
    local tool why
    for tool in linux.uml:user-mode-linux modprobe:kmod ip:iproute2 cc:gcc; do
        command -v "${tool%:*}" >/dev/null || skip "the kernel has none, and ${tool%:*} is missing (apt install ${tool#*:})"
    done
    compgen -G '/usr/lib/uml/modules/*/kernel/net/tipc/tipc.ko' >/dev/null || skip "user-mode Linux comes without its module"
    [ "$shim" -nt "$here/xsave.c" ] && return
    # Under a name of its own first: two guests may build it at a time.
    why=$(mkdir -p "$(dirname "$shim")" && cc -O2 -Wall -Wextra -shared -fPIC -o "$shim.$$" "$here/xsave.c" 2>&1 &&
        mv "$shim.$$" "$shim" 2>&1) || skip "$why"
}

[ $# -gt 0 ] || { sed -n '2,/^set /{s/^# \{0,1\}//p}' "$0" >&2; exit 2; }

room=(unshare --mount --net --pid --fork --kill-child --mount-proc)
[ "$(id -u)" = 0 ] || room+=(--user --map-root-user)
why=$("${room[@]}" true 2>&1) || skip "$why"

case ${TIPC_WAY:-} in
'') if host_has_tipc; then way=host; else way=uml; fi ;;
host) way=host && { host_has_tipc || skip "the kernel has none"; } ;;
uml) way=uml ;;
*) printf 'TIPC_WAY: host or uml, not %s\n' "$TIPC_WAY" >&2; exit 2 ;;
esac
[ $way = host ] || require_uml

# unshare holds back SIGTERM and SIGINT while it waits, so it is killed, and its child with it (--kill-child).
# Were this script killed, which no trap sees, the kernel kills unshare (--pdeathsig).
stop() {
    kill -KILL "$room_pid"
    wait 2>/dev/null
    trap - "$1"
    kill -s "$1" $$
}

# Output goes through pipes of our own: user-mode Linux switches what it writes to to non-blocking, which would be the caller's
# terminal; and their end tells that all is out and everybody gone.
exec 3> >(exec cat)
out_pid=$!
exec 4> >(exec cat >&2 3>&-)
err_pid=$!

# The shell has what it starts in the background ignore SIGINT.
env --default-signal=INT,QUIT setpriv --pdeathsig KILL \
    "${room[@]}" "$here/room.sh" "$way" "$shim" "$@" </dev/null >&3 2>&4 3>&- 4>&- &
room_pid=$!
for signal in INT TERM HUP; do
    trap "stop $signal" "$signal"
done
exec 3>&- 4>&-
wait "$room_pid"
status=$?
wait "$out_pid" "$err_pid"
exit "$status"
