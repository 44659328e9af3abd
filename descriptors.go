//go:build !windows

package caddysnake

import (
	"encoding/binary"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/mliezun/caddy-snake/internal/wire"
)

// descriptors is Caddy's end of the socketpair on which a worker sends open files, one in each message beside the number
// of its stream. A plain read of the worker's other socket would drop them. docs/adr/0008-descriptors.md has the reasons.
type descriptors struct {
	fd int // -1: closed
}

// newDescriptors makes the pair: Caddy's end, and a file for the worker.
func newDescriptors() (*descriptors, *os.File, error) {
	syscall.ForkLock.RLock() // see socketpair
	fds, err := syscall.Socketpair(syscall.AF_UNIX, descriptorSocket, 0)
	if err == nil {
		syscall.CloseOnExec(fds[0])
		syscall.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, fmt.Errorf("making a socketpair for a worker's descriptors: %w", err)
	}
	return &descriptors{fd: fds[0]}, os.NewFile(uintptr(fds[1]), "descriptors"), nil
}

// Next implements wire.FileSource.
func (d *descriptors) Next() (stream uint32, file *os.File, ok bool) {
	var message [8]byte
	control := make([]byte, unix.CmsgSpace(4))
	for {
		syscall.ForkLock.RLock() // keeps what comes out of a child that is forked before it is close-on-exec
		n, size, _, _, err := unix.Recvmsg(d.fd, message[:], control, unix.MSG_DONTWAIT)
		files := received(control[:max(size, 0)])
		syscall.ForkLock.RUnlock()
		switch {
		case err == unix.EINTR:
			continue
		case err != nil || n == 0: // nothing is there, or the worker has gone
			return 0, nil, false
		case n == 4 && len(files) <= 1:
			if len(files) == 1 {
				file = os.NewFile(uintptr(files[0]), "file of a response")
			}
			return binary.LittleEndian.Uint32(message[:]), file, true
		}
		for _, fd := range files { // no worker of ours sends such a message
			_ = unix.Close(fd)
		}
	}
}

// received returns the descriptors in a control message.
func received(control []byte) (fds []int) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil
	}
	for _, m := range messages {
		rights, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue
		}
		for _, fd := range rights {
			unix.CloseOnExec(fd)
			fds = append(fds, fd)
		}
	}
	return fds
}

// Close implements io.Closer. What has not been received is closed with it.
func (d *descriptors) Close() error {
	if d.fd < 0 {
		return nil
	}
	fd := d.fd
	d.fd = -1
	return unix.Close(fd)
}

// Interface guard.
var _ wire.FileSource = (*descriptors)(nil)
