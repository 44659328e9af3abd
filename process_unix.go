//go:build !windows && !linux

package caddysnake

import "syscall"

// childAttributes puts a worker into a process group of its own, so that Ctrl-C in a terminal reaches Caddy alone.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
