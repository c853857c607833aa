//go:build tools

// Package tools keeps modules in go.mod whose own main packages are built as they are: kind, and a provisioner of volumes.
package tools

import (
	_ "github.com/rancher/local-path-provisioner"
	_ "sigs.k8s.io/kind"
)
