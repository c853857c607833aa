# Sourced by the scripts beside it: a Docker engine of the tests' own. With one of the machine it would share the bridge docker0 and its rules
# for iptables: ../kind.sh refuses where one runs.
docker_run=/run/shortener-docker
export DOCKER_HOST="unix://$docker_run/docker.sock" DOCKER_CONFIG="$docker_run/config"
PATH="$PATH:/usr/sbin:/sbin"

# Lets one script at a time make or remove a cluster. What such a script has started holds the lock as well, until it has ended too;
# but for what stays, which gets `9>&-`.
lock_docker() {
  mkdir -p "$docker_run"
  exec 9>"$docker_run/lock"
  flock 9
}

# start_docker DIRECTORY
start_docker() {
  ! docker version >/dev/null 2>&1 || return 0
  local data="$HOME/.cache/shortener/docker"
  mkdir -p "$data" "$docker_run/config"
  # Set before it starts: it would set it itself and then forbid what it does not know to be forwarded.
  echo 1 >/proc/sys/net/ipv4/ip_forward
  # Without CAP_SYS_RESOURCE neither a lower score nor higher limits can be had: see runc/main.go.
  setsid nohup dockerd --data-root "$data" --exec-root "$docker_run/exec" --pidfile "$docker_run/docker.pid" --host "$DOCKER_HOST" \
    --storage-driver overlay2 --oom-score-adjust 0 --add-runtime "bounded=$1/runc" --default-runtime bounded \
    --ip6tables=false --default-ulimit "nofile=$(ulimit -Hn):$(ulimit -Hn)" >"$docker_run/dockerd.log" 2>&1 </dev/null 9>&- &
  local attempt
  for attempt in $(seq 300); do
    ! docker version >/dev/null 2>&1 || return 0
    sleep 0.1
  done
  tail -5 "$docker_run/dockerd.log" >&2
  echo "Docker's engine does not start" >&2
  return 1
}

stop_docker() {
  local pid
  pid="$(cat "$docker_run/docker.pid" 2>/dev/null)" || return 0
  kill "$pid"
  while [ -e "/proc/$pid" ]; do sleep 0.1; done
}
