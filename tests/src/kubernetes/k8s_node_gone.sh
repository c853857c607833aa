# Removes the control groups called $1, as soon as the last process in them has ended.
tries=0
while [ "$tries" -lt 100 ]; do
  groups="$(find /sys/fs/cgroup -maxdepth 2 -type d -name "$1" 2>/dev/null)"
  [ -n "$groups" ] || break
  find $groups -depth -type d -exec rmdir {} \; 2>/dev/null
  tries=$((tries + 1))
  sleep 0.1
done
