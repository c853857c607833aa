// Command pause is the first process of every pod: it does nothing but hold the pod's namespaces, collect the children
// that are left to it, and end when it is told to.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	// Wide enough for the children of a pod that end at once; one signal collects all of them anyway.
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGCHLD, syscall.SIGTERM, syscall.SIGINT)
	for received := range signals {
		if received != syscall.SIGCHLD {
			return
		}
		collectChildren()
	}
}

func collectChildren() {
	for {
		child, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		if child <= 0 || err != nil {
			return
		}
	}
}
