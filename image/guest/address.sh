#!/bin/busybox sh
# What udhcpc calls with an address: only the address and the way back to clients are taken; names are not resolved here.
[ "$1" = bound ] || exit 0
/bin/busybox ifconfig "$interface" "$ip" netmask "$subnet"
[ -z "$router" ] || /bin/busybox route add default gw "${router%% *}" dev "$interface"
