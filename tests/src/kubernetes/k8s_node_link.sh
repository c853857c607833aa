# Links the machine that pods run on to this one, and gives it control groups of its own. All but the control groups goes
# when the machine does. $1: a process of the machine. $2: the link's name. $3, $4: the addresses of this machine and of
# that one on it. $5, $6: the addresses that lie behind it.
set -eu
there() { nsenter --net="/proc/$1/ns/net" -- sh -euc "$2"; }
ip link add "$2" type veth peer name eth0 netns "$1"
ip address add "$3/30" dev "$2"
ip link set "$2" up
there "$1" "ip link set lo up
ip address add $4/30 dev eth0
ip link set eth0 up
ip route add default via $3
echo 1 >/proc/sys/net/ipv4/ip_forward"
ip route add "$5" via "$4"
ip route add "$6" via "$4"

if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
  mkdir "/sys/fs/cgroup/$2"
else
  for hierarchy in /sys/fs/cgroup/*/; do
    mkdir "$hierarchy$2"
  done
  # A group of version 1 begins without any processor.
  for set in cpus mems; do
    cat "/sys/fs/cgroup/cpuset/cpuset.$set" >"/sys/fs/cgroup/cpuset/$2/cpuset.$set"
  done
fi
