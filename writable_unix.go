//go:build !windows

package caddysnake

import "golang.org/x/sys/unix"

// isWritable tells whether a connection takes some bytes at once.
func isWritable(fd uintptr) bool {
	fds := [...]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	n, err := unix.Poll(fds[:], 0)
	return err == nil && n == 1 && fds[0].Revents == unix.POLLOUT
}
