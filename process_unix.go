//go:build !windows && !linux

package caddysnake

import (
	"errors"
	"io/fs"
	"syscall"
	"unsafe"
)

// childAttributes puts a worker into a process group of its own, so that Ctrl-C in a terminal reaches Caddy alone.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}

// descriptorSocket is the type of the sockets that descriptors travel on: it keeps messages apart. macOS has no
// SOCK_SEQPACKET for Unix sockets.
const descriptorSocket = syscall.SOCK_DGRAM

// changed tells whether a file's status has changed between two looks at it: its contents, its owner, its place.
func changed(before, after fs.FileInfo) bool {
	return before.Sys().(*syscall.Stat_t).Ctimespec != after.Sys().(*syscall.Stat_t).Ctimespec
}

// isStopped cannot tell here whether a signal has stopped a child; its monitor does not answer then.
func isStopped(int) bool { return false }

// waitid(2) of macOS and the BSDs, which package unix does not have.
const (
	idTypePid = 1    // P_PID
	exited    = 0x04 // WEXITED
	noWait    = 0x20 // WNOWAIT
)

// awaitExit waits until a child has exited, and leaves it to be reaped: nobody else gets its number until then.
func awaitExit(pid int) {
	var info [256]byte // siginfo_t
	for {
		_, _, err := syscall.Syscall6(syscall.SYS_WAITID, idTypePid, uintptr(pid), uintptr(unsafe.Pointer(&info)), exited|noWait, 0, 0)
		if !errors.Is(err, syscall.EINTR) {
			return
		}
	}
}
