package caddysnake

import (
	"errors"
	"io/fs"
	"syscall"

	"golang.org/x/sys/unix"
)

// childAttributes puts a worker into a process group of its own, so that Ctrl-C in a terminal reaches Caddy alone, and
// has the kernel end it with Caddy.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// descriptorSocket is the type of the sockets that descriptors travel on: it keeps messages apart.
const descriptorSocket = syscall.SOCK_SEQPACKET

// changed tells whether a file's status has changed between two looks at it: its contents, its owner, its place.
func changed(before, after fs.FileInfo) bool {
	return before.Sys().(*syscall.Stat_t).Ctim != after.Sys().(*syscall.Stat_t).Ctim
}

// isStopped tells whether a signal has stopped a child. One that a debugger has stopped counts as running.
func isStopped(pid int) bool {
	var info unix.Siginfo
	err := unix.Waitid(unix.P_PID, pid, &info, unix.WSTOPPED|unix.WNOHANG|unix.WNOWAIT, nil)
	return err == nil && info.Signo != 0
}

// awaitExit waits until a child has exited, and leaves it to be reaped: nobody else gets its number until then.
func awaitExit(pid int) {
	for errors.Is(unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil), unix.EINTR) {
	}
}
