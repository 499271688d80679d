#!/bin/bash
# init.sh: the first process of user-mode Linux. Its / is the host's, read only; it makes one that can be written to, moves there,
# loads TIPC, and runs /run/command. If anything fails here this process ends, the kernel panics, and room.sh shows
# the console.
set -euo pipefail
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
modules=/usr/lib/uml/modules/$(uname -r)
command=$(</run/command)

mount -t proc proc /proc
insmod "$modules/kernel/fs/overlayfs/overlay.ko"
mount -t tmpfs -o size=75% tmpfs /run/guest
cd /run/guest
mkdir upper work root
mount -t overlay -o lowerdir=/,upperdir=upper,workdir=work overlay root
cd root
mkdir -p mnt
pivot_root . mnt
umount -l /mnt

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm /dev/mqueue
ln -sfn /proc/self/fd /dev/fd
ln -sfn fd/0 /dev/stdin
ln -sfn fd/1 /dev/stdout
ln -sfn fd/2 /dev/stderr
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777,size=75% tmpfs /dev/shm
mount -t mqueue mqueue /dev/mqueue
mount -t tmpfs -o mode=755 tmpfs /run
printf '%s\n' "$command" >/run/command
case $command in
*$'\ncd /tmp'*) ;; # it would be covered
*) mount -t tmpfs -o mode=1777 tmpfs /tmp ;;
esac

mkdir -p /lib/modules
ln -sfn "$modules" "/lib/modules/$(uname -r)"
modprobe -a tipc veth
ip link set lo up

exec 3>/dev/ttyS0 4>/dev/ttyS1 5>/dev/ttyS2
for line in 0 1 2; do
    stty -F "/dev/ttyS$line" raw
done
{
    {
        status=0
        bash /run/command </dev/null 2>&1 >&6 3>&- 4>&- 5>&- 6>&- || status=$?
        echo $status >&5
    } | cat >&4
} 6>&1 | cat >&3
exec 3>&- 4>&- 5>&- # waits until all is out
sync
echo o >/proc/sysrq-trigger
sleep 60
