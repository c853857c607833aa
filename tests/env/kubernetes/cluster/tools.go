//go:build tools

// Package tools keeps modules in go.mod whose programs are not built yet: cluster DNS, a provisioner of volumes, kind. With
// them in it, the versions of all others stay as they are on the day that they are built, and nothing is compiled anew.
package tools

import (
	_ "github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/forward"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/rancher/local-path-provisioner"
	_ "sigs.k8s.io/kind"
)
