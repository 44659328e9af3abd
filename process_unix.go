//go:build !windows && !linux

package caddysnake

import "syscall"

// childAttributes puts a worker into a process group of its own, so that Ctrl-C in a terminal reaches Caddy alone.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}

// descriptorSocket is the type of the sockets that descriptors travel on: it keeps messages apart. macOS has no
// SOCK_SEQPACKET for Unix sockets.
const descriptorSocket = syscall.SOCK_DGRAM
