#!/bin/busybox sh
# The machine's first process: makes it look like the host, runs /command, and turns it off.
# machine.py puts the modules and the command beside it.

/bin/busybox --install -s /bin
mount -t proc none /proc
mount -t devtmpfs none /dev
for module in $(cat /modules/order); do insmod /modules/$module; done

# The host's files below, and what is written above, in memory.
mount -t 9p -o trans=virtio,version=9p2000.L,msize=524288,cache=loose,ro host /host
mount -t tmpfs none /written
mkdir /written/upper /written/work
mount -t overlay -o lowerdir=/host,upperdir=/written/upper,workdir=/written/work host /merged

mount -t proc none /merged/proc
mount -t sysfs none /merged/sys
mount -t cgroup2 none /merged/sys/fs/cgroup
mount -t devtmpfs none /merged/dev
mkdir -p /merged/dev/pts /merged/dev/shm
mount -t devpts none /merged/dev/pts
mount -t tmpfs none /merged/dev/shm
mount -t tmpfs none /merged/run
ip link set lo up
echo "up after $(cut -d' ' -f1 /proc/uptime) s"

# As systemd does for a unit with Delegate=yes and DelegateSubgroup=supervisor; that the group is
# delegated an attribute has to say, which busybox cannot set.
cd /merged/sys/fs/cgroup
echo "+memory +pids" > cgroup.subtree_control
mkdir -p att.service/supervisor
echo $$ > att.service/supervisor/cgroup.procs

cp /command /merged/run/command
chroot /merged /bin/sh /run/command
echo "$?" > /dev/ttyS1
reboot -f
