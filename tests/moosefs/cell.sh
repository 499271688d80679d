#!/usr/bin/env bash
# cell.sh COMMAND [ARGUMENT...]: run COMMAND beside a real MooseFS: a master, two chunkservers and a mount.
#
# COMMAND has an empty /dev/shm of its own. It finds the mount in $NUMPUSH_MOOSEFS, and in $MOOSEFS_CELL a directory with
#    chunkserver1.pid, chunkserver2.pid      to kill or to stop
#    start-chunkserver N                     to start one again
# The exit status is COMMAND's, or 77: no MooseFS to be had here; why is said on stderr. 125: it took longer than
# MOOSEFS_DEADLINE (600 s).
#
# Nothing outlives this script, not even when it is killed: all of it runs in namespaces (of processes, mounts and networks) that the
# kernel takes apart when their first process goes, and its files lie in memory mounted there. A chunkserver refuses
# addresses of 127.0.0.0/8, so the loopback gets others.
set -uo pipefail
PATH=$PATH:/usr/sbin:/sbin

skip() {
    printf 'no MooseFS here: %s\n' "$1" >&2
    exit 77
}

if [ "${MOOSEFS_INSIDE:-}" != yes ]; then
    for tool in mfsmaster:moosefs-master mfschunkserver:moosefs-chunkserver mfsmount:moosefs-client \
        mfssetgoal:moosefs-client ip:iproute2 unshare:util-linux; do
        command -v "${tool%:*}" >/dev/null || skip "${tool%:*} is missing (apt install ${tool#*:})"
    done
    [ "$(id -u)" = 0 ] || skip "needs root, for namespaces and a mount"
    [ -w /dev/fuse ] || skip "/dev/fuse is not there, or not to be written to"
    unshare --net --mount --pid --fork --kill-child true 2>/dev/null || skip "no namespaces to be had"
    MOOSEFS_INSIDE=yes exec timeout --kill-after=10 "${MOOSEFS_DEADLINE:-600}" \
        unshare --net --mount --pid --fork --kill-child --mount-proc bash "$0" "$@"
fi

master=10.77.0.1
cell=/mnt # ours alone: nobody else sees this mount
mount -t tmpfs -o size=64m numpush-moosefs "$cell" || skip "cannot mount a tmpfs at $cell"
mount -t tmpfs numpush-shm /dev/shm || skip "cannot mount a tmpfs at /dev/shm" # others take our numbers of processes for dead ones
mkdir "$cell"/{etc,meta,mnt}
ip link set lo up
ip addr add $master/24 dev lo

common() { # DATA_PATH
    printf '%s = %s\n' WORKING_USER "$(id -un)" WORKING_GROUP "$(id -gn)" DATA_PATH "$1" NICE_LEVEL 0 DISABLE_OOM_KILLER 0
}

printf 'MFSM NEW' >"$cell/meta/metadata.mfs"
echo "* / rw,alldirs,admin,maproot=0:0" >"$cell/etc/exports.cfg"
: >"$cell/etc/topology.cfg"
{
    common "$cell/meta"
    printf '%s = %s\n' EXPORTS_FILENAME "$cell/etc/exports.cfg" TOPOLOGY_FILENAME "$cell/etc/topology.cfg" \
        MATOML_LISTEN_HOST $master MATOCS_LISTEN_HOST $master MATOCL_LISTEN_HOST $master
} >"$cell/etc/master.cfg"
mfsmaster -n -c "$cell/etc/master.cfg" start >"$cell/log" 2>&1 || { cat "$cell/log" >&2; skip "its master does not start"; }

for n in 1 2; do
    mkdir "$cell/cs$n" "$cell/chunks$n"
    mount -t tmpfs -o size=2g numpush-chunks "$cell/chunks$n"
    ip addr add 10.77.0.1$n/24 dev lo
    echo "~$cell/chunks$n" >"$cell/etc/hdd$n.cfg"
    {
        common "$cell/cs$n"
        printf '%s = %s\n' HDD_CONF_FILENAME "$cell/etc/hdd$n.cfg" HDD_LEAVE_SPACE_DEFAULT 16MiB BIND_HOST 10.77.0.1$n \
            CSSERV_LISTEN_HOST 10.77.0.1$n MASTER_HOST $master MASTER_RECONNECTION_DELAY 1
    } >"$cell/etc/chunkserver$n.cfg"
    ln -s "cs$n/.mfschunkserver.lock" "$cell/chunkserver$n.pid"
done
cat >"$cell/start-chunkserver" <<END
#!/bin/sh
exec mfschunkserver -n -c "$cell/etc/chunkserver\$1.cfg" start >>"$cell/log" 2>&1
END
chmod +x "$cell/start-chunkserver"
"$cell/start-chunkserver" 1
"$cell/start-chunkserver" 2

# Fewer tries than by default, and an error when there is no room: else reads hang for two minutes, writes for longer. With
# 3 tries a read fails when one of two copies goes.
mfsmount "$cell/mnt" -o "mfsmaster=$master,mfsport=9421,mfsioretries=8,mfserroronnospace" >>"$cell/log" 2>&1 ||
    { cat "$cell/log" >&2; skip "it cannot be mounted"; }
for _ in $(seq 200); do # until the master has counted the room of both
    [ "$(stat -f -c %b "$cell/mnt")" -gt 60000 ] && break
    sleep 0.05
done
[ "$(stat -f -c %a "$cell/mnt")" -gt 0 ] || { cat "$cell/log" >&2; skip "its chunkservers do not start"; }
mfssettrashtime 0 "$cell/mnt" >/dev/null # what is replaced would be kept for a day

export NUMPUSH_MOOSEFS=$cell/mnt MOOSEFS_CELL=$cell
"$@"
status=$?
umount -l "$cell/mnt"
exit $status
