#!/usr/bin/env bash
# node_image.sh DIRECTORY IMAGE: what kindest/node is, of what registries of packages have: Debian, the files that kind's own module
# brings for it, Kubernetes as built here, and in its containerd the images of a control plane. Docker's engine gets it as IMAGE.
set -euo pipefail
directory="$1" image="$2"
cd "$(dirname "$0")"
. ./docker.sh

kubernetes="$(realpath "$directory/kubernetes")"
go="$(command -v go || PATH="$PATH:/usr/local/go/bin" command -v go)"
files="$("$go" -C ../kubernetes/cluster list -m -f '{{.Dir}}' sigs.k8s.io/kind)/images/base/files"
version="$("$kubernetes/kubeadm" version -o short)"
pause=registry.k8s.io/pause:3.10.1
work="$(mktemp -d)"
containerd_pid=
cleanup() {
  [ -z "$containerd_pid" ] || kill "$containerd_pid" 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT
root="$work/root"

debian() {
  mkdir -p "$root"
  tar -C "$root" -xf "$directory/debian.tar"
}

# As the Dockerfile of kind's base image sets it up.
base() {
  cp -r --no-preserve=mode "$files"/etc "$files"/kind "$files"/usr "$root/"
  chmod 755 "$root"/usr/local/bin/* "$root"/kind/bin/*
  local wants="$root/lib/systemd/system"
  rm -f "$wants"/{multi-user,local-fs}.target.wants/* "$root"/etc/systemd/system/*.wants/* \
    "$wants"/sysinit.target.wants/systemd-tmpfiles-setup.service "$wants"/sockets.target.wants/*{udev,initctl}* \
    "$wants"/basic.target.wants/*
  echo ReadKMsg=no >>"$root/etc/systemd/journald.conf"
  chroot "$root" systemctl --quiet enable kubelet.service containerd.service undo-mount-hacks.service
  chroot "$root" systemctl --quiet mask systemd-binfmt.service
  mkdir -p "$root"/etc/kubernetes/manifests "$root"/opt/cni/bin "$root"/kind/manifests
  cp "$root"/usr/lib/cni/{host-local,loopback,ptp,portmap} "$root/opt/cni/bin/"
  local program
  for program in containerd ctr containerd-shim-runc-v2; do
    ln -sf "/usr/bin/$program" "$root/usr/local/bin/"
  done
  # Without CAP_SYS_RESOURCE neither a lower score nor higher limits can be had: see runc/main.go.
  cp "$directory/runc" "$root/usr/local/sbin/runc"
  sed -i "s/restrict_oom_score_adj = false/restrict_oom_score_adj = true/; s#registry.k8s.io/pause:[0-9.]*\"#$pause\"#" \
    "$root/etc/containerd/config.toml"
  sed -i '/^Limit/d; /^OOMScoreAdjust/d' "$root/etc/systemd/system/containerd.service"
  chroot "$root" ctr oci spec |
    jq '.hooks.createContainer += [{path: "/kind/bin/mount-product-files.sh"}] | del(.process.rlimits)' \
      >"$root/etc/containerd/cri-base.json"
  printf '%s' "$version" >"$root/kind/version"
  cp default-cni.yaml default-storage.yaml "$root/kind/manifests/"
  cp "$kubernetes/kubernetes" "$root/usr/bin/"
  for program in kubelet kubeadm kubectl; do
    ln -s kubernetes "$root/usr/bin/$program"
  done
}

# One image for all of the control plane, which each part knows by its own name.
images() {
  mkdir -p "$work/images"
  local extra="$work/extra" library program
  mkdir -p "$extra/bin" "$extra/usr/sbin" "$extra/usr/lib"
  for program in sh rm chmod ip sleep cat mkdir mv; do
    ln -s busybox "$extra/bin/$program"
  done
  cp "$(command -v busybox)" "$extra/bin/"
  # kube-proxy's iptables load their extensions by themselves, which have libraries of their own.
  local arch_lib
  arch_lib="$(cd "$root/usr/lib" && echo *-linux-gnu)"
  mkdir -p "$extra/usr/lib/$arch_lib"
  cp -r "$root/usr/lib/$arch_lib/xtables" "$extra/usr/lib/$arch_lib/"
  cp "$root"/usr/sbin/{xtables-nft-multi,conntrack} "$extra/usr/sbin/"
  for library in $(chroot "$root" sh -c "ldd /usr/sbin/xtables-nft-multi /usr/sbin/conntrack /usr/lib/$arch_lib/xtables/*.so" |
    grep -o '/[^ ]* (' | cut -d' ' -f1 | sort -u); do
    mkdir -p "$extra$(dirname "$library")"
    cp -L "$root$library" "$extra$library"
  done
  for program in iptables iptables-save iptables-restore ip6tables ip6tables-save ip6tables-restore; do
    ln -s xtables-nft-multi "$extra/usr/sbin/$program"
  done
  mkdir -p "$extra/usr/local/bin"
  for program in etcd kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubectl; do
    ln -s kubernetes "$extra/usr/local/bin/$program"
  done
  ../image.sh --user 0 --files "$extra" localhost/kubernetes:1 "$work/images/kubernetes.tar" "$kubernetes/kubernetes"
  local coredns
  coredns="$("$kubernetes/kubeadm" config images list --kubernetes-version "$version" | grep /coredns:)"
  ../image.sh --user 0 "$coredns" "$work/images/coredns.tar" "$kubernetes/coredns"
  ../image.sh "$pause" "$work/images/pause.tar" "$kubernetes/pause"
  ../image.sh --user 0 localhost/local-path-provisioner:1 "$work/images/provisioner.tar" \
    "$kubernetes/local-path-provisioner"

  # This machine's containerd fills the folder that the node's will find.
  local socket="$work/containerd.sock" attempt archive name
  mkdir -p "$root/var/lib/containerd" "$work/state"
  cat >"$work/containerd.toml" <<END
version = 2
root = "$root/var/lib/containerd"
state = "$work/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
  address = "$socket"
END
  containerd --config "$work/containerd.toml" >"$work/containerd.log" 2>&1 9>&- &
  containerd_pid=$!
  for attempt in $(seq 100); do
    ! ctr --address "$socket" version >/dev/null 2>&1 || break
    sleep 0.1
  done
  in_node() { ctr --address "$socket" --namespace k8s.io "$@" >/dev/null; }
  for archive in "$work"/images/*.tar; do
    in_node images import --no-unpack "$archive"
  done
  for name in $("$kubernetes/kubeadm" config images list --kubernetes-version "$version" | grep -E '/(kube-[a-z-]+|etcd):'); do
    in_node images tag localhost/kubernetes:1 "$name"
  done
  kill "$containerd_pid"
  wait "$containerd_pid" || true
  containerd_pid=
}

debian
base
images
../archive.sh --user 0 --stop-signal SIGRTMIN+3 "$image" "$work/node.tar" "$root" /usr/local/bin/entrypoint /sbin/init
docker load --quiet --input "$work/node.tar"
