//go:build !cgo || windows

package caddysnake

import (
	"errors"
	"runtime"
)

// noThreads says why this Caddy cannot have workers that are threads.
var noThreads = func() string {
	if runtime.GOOS == "windows" {
		return "thread is not available on Windows in this version"
	}
	return "thread needs a caddy that is built with cgo (CGO_ENABLED=1 and a C compiler), which this one is not; use process, the default"
}()

func startPython(string, string, string) error { return errors.New(noThreads) }
