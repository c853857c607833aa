//go:build tools

// Package tools pins Helm, which `tests/env/kubernetes.sh` builds from this module. It is never compiled itself: the import
// keeps the module in go.mod and its checksums in go.sum. Helm has a module of its own since it would bring newer versions
// under Kubernetes; what both use is of the same version, so that it is compiled once.
package tools

import _ "helm.sh/helm/v3/cmd/helm"
