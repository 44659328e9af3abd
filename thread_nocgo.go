//go:build !cgo

package caddysnake

import "errors"

// noThreads says why this Caddy cannot have workers that are threads.
var noThreads = "thread needs a caddy that is built with cgo (CGO_ENABLED=1 and a C compiler), which this one is not" +
	advise("; use process, the default", "; build it so")

func startPython(string, string, bool, string) error { return errors.New(noThreads) }
