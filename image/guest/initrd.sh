#!/bin/busybox sh
# Opens the root that the measured command line names by its hash, and becomes it. Whatever fails ends in a kernel panic.
# Busybox ends here: the verified root has no shell.
set -e
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
export PATH=/usr/bin:/usr/sbin DM_DISABLE_UDEV=1
alias b=/bin/busybox
for module in $(b cat /modules/order); do
  b insmod "/modules/$module" || b echo "initrd: $module does not load"  # a driver of another cloud's device
done
for argument in $(b cat /proc/cmdline); do
  case $argument in roothash=*) roothash=${argument#roothash=} ;; esac
done
partition() {
  for tries in 1 2 3 4 5 6 7 8 9 10; do
    file=$(b grep -l "^PARTNAME=$1\$" /sys/class/block/*/uevent | b head -n 1)
    [ -z "$file" ] || break
    b sleep 1
  done
  [ -n "$file" ] || { b echo "initrd: no partition $1" >&2; return 1; }
  b basename "$(b dirname "$file")"
}
data=$(partition blindai-root)
tree=$(partition blindai-hash)
veritysetup open "/dev/$data" root "/dev/$tree" "$roothash" --panic-on-corruption
b mount -t erofs -o ro,nodev,nosuid /dev/mapper/root /root
b ifconfig lo up
b ifconfig eth0 up
b udhcpc -i eth0 -n -q -t 10 -T 1 -s /address >/dev/null
b umount /dev /sys /proc
exec /bin/busybox switch_root /root /usr/bin/python3.13 -I /usr/lib/blindai/start.py
