//go:build tools

// Package tools pins the real Placement Driver, which `tests/env/tikv.sh` builds from this module. It is never compiled
// itself: the import keeps the module in go.mod and its checksums in go.sum.
package tools

import _ "github.com/tikv/pd/cmd/pd-server"
