package caddysnake

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mliezun/caddy-snake/internal/wire"
)

// socket is Caddy's end of a worker's socketpair.
//
// It is not a net.Conn, because Go's poller asks to be told whenever a socket may be written, and the kernel says so of
// a Unix socket each time that the other side has read something: one idle wake-up for each request. So the poller
// watches an epoll instance instead, which watches the socket for input alone. docs/adr/0005-input-only.md has figures.
type socket struct {
	input *os.File        // the epoll instance
	ready syscall.RawConn // of input

	// Of the read that is under way; wire.Conn has one at a time. A method value made once saves making it for each read.
	try  func(uintptr) bool
	spin time.Duration
	buf  []byte
	n    int
	err  error

	mu sync.RWMutex // held for reading while fd is in use; guards fd
	fd int          // -1: closed
}

// newSocket takes fd over.
func newSocket(fd int) (wire.Socket, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("making an epoll instance: %w", err)
	}
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP, Fd: int32(fd)}
	err = errors.Join(unix.SetNonblock(fd, true), unix.SetNonblock(epoll, true),
		unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &event))
	if err != nil {
		_ = unix.Close(epoll)
		return nil, fmt.Errorf("watching a worker's socket: %w", err)
	}
	s := &socket{input: os.NewFile(uintptr(epoll), "worker"), fd: fd}
	s.try = s.tryRead
	if s.ready, err = s.input.SyscallConn(); err != nil {
		_ = s.input.Close()
		return nil, fmt.Errorf("watching a worker's socket: %w", err)
	}
	return s, nil
}

// Read implements io.Reader. One goroutine at a time may call it.
func (s *socket) Read(b []byte) (int, error) {
	s.buf = b
	defer func() { s.buf = nil }()
	if !s.trySpinning() {
		if err := s.ready.Read(s.try); err != nil { // the deadline, or closed
			return 0, err
		}
	}
	switch {
	case s.err != nil:
		return 0, s.err
	case s.n == 0:
		return 0, io.EOF
	default:
		return s.n, nil
	}
}

// Spin implements wire.Spinner.
func (s *socket) Spin(d time.Duration) { s.spin = d }

// trySpinning reads what comes within s.spin. After each look it lets others have the processor: the kernel often wakes
// the worker on the very processor that woke it, even while another is idle.
func (s *socket) trySpinning() bool {
	if s.spin == 0 {
		return false
	}
	for began := time.Now(); time.Since(began) < s.spin; {
		if s.tryRead(0) {
			return true
		}
		_, _, _ = unix.Syscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
	}
	return false
}

// tryRead reads what is there; false: nothing is.
func (s *socket) tryRead(uintptr) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for {
		if s.fd < 0 {
			s.n, s.err = 0, net.ErrClosed
			return true
		}
		s.n, s.err = unix.Read(s.fd, s.buf)
		switch s.err {
		case unix.EAGAIN:
			return false
		case unix.EINTR:
		default:
			return true
		}
	}
}

// Write implements io.Writer. It waits while the worker's side is full, which is rare: frames are small or have credit.
func (s *socket) Write(b []byte) (int, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	written := 0
	for written < len(b) {
		if s.fd < 0 {
			return written, net.ErrClosed
		}
		n, err := unix.Write(s.fd, b[written:])
		written += max(n, 0)
		switch err {
		case nil, unix.EINTR:
		case unix.EAGAIN:
			poll := []unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLOUT}}
			_, _ = unix.Poll(poll, -1) // Close shuts the socket down, which ends it
		default:
			return written, fmt.Errorf("writing to the worker: %w", err)
		}
	}
	return written, nil
}

// Close implements io.Closer. It interrupts what is under way.
func (s *socket) Close() error {
	s.mu.RLock()
	if s.fd >= 0 {
		_ = unix.Shutdown(s.fd, unix.SHUT_RDWR)
	}
	s.mu.RUnlock()
	s.mu.Lock()
	fd := s.fd
	s.fd = -1
	s.mu.Unlock()
	if fd < 0 {
		return nil
	}
	// Without mu: closing input waits for a Read that is under way, and that takes mu.
	return errors.Join(s.input.Close(), unix.Close(fd))
}

// SetReadDeadline interrupts a Read that lasts beyond t, or is under way after it.
func (s *socket) SetReadDeadline(t time.Time) error { return s.input.SetReadDeadline(t) }
