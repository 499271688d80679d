#!/usr/bin/env bash
# room.sh host|uml SHIM COMMAND [ARGUMENT...]: the first process in the namespaces that guest.sh made. Furnishes them and runs
# COMMAND there, or boots user-mode Linux, whose first process init.sh runs COMMAND.
#
# To user-mode Linux the directory /run, memory of these namespaces, is how it is told what to do (init, command), and how it
# is heard: its serial lines are COMMAND's output, errors and exit status, its console is a file that is shown if it dies.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
way=$1
shim=$2
shift 2
directory=$PWD

mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t tmpfs -o mode=755 tmpfs /run

if [ "$way" = host ]; then
    case $directory/ in
    /tmp/*) ;; # it would be covered
    *) mount -t tmpfs -o mode=1777 tmpfs /tmp ;;
    esac
    ip link set lo up
    status=0
    timeout -k 5 "$TIPC_DEADLINE" "$@" || status=$?
    if [ "$status" = 124 ]; then
        echo "not done after $TIPC_DEADLINE s" >&2
        status=125
    fi
    exit "$status"
fi

cd /run
mkdir guest
cp "$here/init.sh" init
{
    export -p
    printf 'cd %q && exec -- %s\n' "$directory" "${*@Q}"
} >command

# Its memory is a file in TMPDIR. To a user who is not root the host's root is nobody, and so are the owners of programs with the
# setuid bit, mount among them: without new privileges they stay root's in the guest. When it is killed some of its processes stay, until this one goes.
ulimit -c 0
(
    timeout -s KILL "$TIPC_DEADLINE" env -i PATH="$PATH" LD_PRELOAD="$shim" TMPDIR=/dev/shm \
        linux.uml mem="$TIPC_MEMORY" uml_dir=/run rootfstype=hostfs ro quiet \
        con=null con0=null,fd:1 ssl=null ssl0=null,fd:3 ssl1=null,fd:4 ssl2=null,fd:5 \
        init="$(command -v setpriv)" -- --no-new-privs /run/init || true
) 3>&1 4>&2 5>status >console 2>&1

status=$(<status)
if [ -z "$status" ]; then
    echo "the guest died, or was not done after $TIPC_DEADLINE s; its console's last words (without addresses):" >&2
    grep -v '^ \[<' console | tail -n 20 >&2
    status=125
fi
exit "$status"
