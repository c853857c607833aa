// Command runc runs the real one after it has taken out of a container's specification what a machine without
// CAP_SYS_RESOURCE cannot grant: that capability itself (else a privileged container does not start), and what only its owner
// may do, which is to raise limits and to lower the score by which the kernel ends processes when memory is out.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

const (
	realRunc   = "/usr/sbin/runc"
	capability = "CAP_SYS_RESOURCE"
)

func main() {
	if err := prepare(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "runc:", err)
		os.Exit(1)
	}
	err := syscall.Exec(realRunc, append([]string{realRunc}, os.Args[1:]...), os.Environ())
	fmt.Fprintf(os.Stderr, "runc: starting %s: %v\n", realRunc, err)
	os.Exit(1)
}

// prepare alters the files that a command names.
func prepare(arguments []string) error {
	switch {
	case slices.Contains(arguments, "create"), slices.Contains(arguments, "run"):
		bundle := option(arguments, "--bundle", "-b")
		return alter(filepath.Join(bundle, "config.json"), func(document map[string]any) map[string]any {
			process, _ := document["process"].(map[string]any)
			return process
		})
	case slices.Contains(arguments, "exec"):
		process := option(arguments, "--process", "-p")
		if process == "" {
			return nil // the command line is the process: it asks for nothing
		}
		return alter(process, func(document map[string]any) map[string]any { return document })
	}
	return nil
}

// option is the value that follows one of the names, or is joined to it by "="; empty if there is none.
func option(arguments []string, names ...string) string {
	for i, argument := range arguments {
		name, value, joined := strings.Cut(argument, "=")
		switch {
		case !slices.Contains(names, name):
		case joined:
			return value
		case i+1 < len(arguments):
			return arguments[i+1]
		}
	}
	return ""
}

func alter(path string, find func(map[string]any) map[string]any) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	decoder := json.NewDecoder(strings.NewReader(string(raw)))
	decoder.UseNumber() // large numbers stay what they are
	var document map[string]any
	if err := decoder.Decode(&document); err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	process := find(document)
	if process == nil {
		return nil
	}
	if sets, ok := process["capabilities"].(map[string]any); ok {
		for name, set := range sets {
			list, _ := set.([]any)
			sets[name] = slices.DeleteFunc(list, func(each any) bool { return each == capability })
		}
	}
	if score, ok := process["oomScoreAdj"].(json.Number); ok && strings.HasPrefix(score.String(), "-") {
		delete(process, "oomScoreAdj")
	}
	delete(process, "rlimits")
	raw, err = json.Marshal(document)
	if err != nil {
		return err
	}
	return os.WriteFile(path, raw, 0o600)
}
