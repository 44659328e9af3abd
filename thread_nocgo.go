//go:build !cgo

package caddysnake

import "errors"

// noThreads says why this Caddy cannot have workers that are threads.
const noThreads = "thread needs a caddy that is built with cgo (CGO_ENABLED=1 and a C compiler), which this one is not; use process, the default but on Windows"

func startPython(string, string, string) error { return errors.New(noThreads) }
