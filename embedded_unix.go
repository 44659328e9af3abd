//go:build !windows

package caddysnake

import (
	"fmt"
	"os"
	"syscall"

	"github.com/mliezun/caddy-snake/internal/wire"
)

// duplicate returns another descriptor of the file, for Python.
func duplicate(f *os.File) (int, error) {
	syscall.ForkLock.RLock() // see socketpair
	defer syscall.ForkLock.RUnlock()
	fd, err := syscall.Dup(int(f.Fd()))
	if err != nil {
		return 0, fmt.Errorf("duplicating a descriptor for Python: %w", err)
	}
	syscall.CloseOnExec(fd)
	return fd, syscall.SetNonblock(fd, false)
}

// closeHandedOver closes what Python has not taken over after all.
func closeHandedOver(fds ...int) {
	for _, fd := range fds {
		_ = syscall.Close(fd)
	}
}

// connect makes two socketpairs, as launchProcess does.
func connect() (*connection, error) {
	ours, theirs, err := socketpair()
	if err != nil {
		return nil, err
	}
	files, theirFiles, err := newDescriptors()
	if err != nil {
		_ = ours.Close()
		_ = theirs.Close()
		return nil, err
	}
	fds, err := handOver(theirs, theirFiles)
	if err != nil {
		_ = ours.Close()
		_ = files.Close()
		return nil, err
	}
	return &connection{socket: ours, files: files, theirSocket: fds[0], theirFiles: fds[1]}, nil
}

// connectMonitor makes the socketpair of a worker's monitor: Caddy's end, and the worker's, as Python calls it.
func connectMonitor() (wire.Socket, int, error) {
	ours, theirs, err := socketpair()
	if err != nil {
		return nil, 0, err
	}
	fds, err := handOver(theirs)
	if err != nil {
		_ = ours.Close()
		return nil, 0, err
	}
	return ours, fds[0], nil
}
