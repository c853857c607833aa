# The first process of the machine that pods run on: it has namespaces of its own for mounts, processes and the network.
# $1: the machine's folder. $2: what stays as this process, and collects the orphans.
set -eu
mount --make-rshared / # among the namespaces that runc makes within this one; nothing of it gets out
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/lib
mkdir "$1/log"
mount --bind "$1/log" /var/log
: >"$1/is-up"
exec "$2"
