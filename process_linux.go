package caddysnake

import "syscall"

// childAttributes puts a worker into a process group of its own, so that Ctrl-C in a terminal reaches Caddy alone, and
// has the kernel end it with Caddy.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// descriptorSocket is the type of the sockets that descriptors travel on: it keeps messages apart.
const descriptorSocket = syscall.SOCK_SEQPACKET
