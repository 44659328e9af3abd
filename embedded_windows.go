package caddysnake

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/windows"

	"github.com/mliezun/caddy-snake/internal/wire"
)

// connectTimeout is how long a connection over loopback may take.
const connectTimeout = 10 * time.Second

// duplicate returns another handle of the file, which Python makes a descriptor of.
func duplicate(f *os.File) (int, error) {
	var handle windows.Handle
	own := windows.CurrentProcess()
	err := windows.DuplicateHandle(own, windows.Handle(f.Fd()), own, &handle, 0, false, windows.DUPLICATE_SAME_ACCESS)
	if err != nil {
		return 0, fmt.Errorf("duplicating a handle for Python: %w", err)
	}
	return int(handle), nil
}

// closeHandedOver closes what Python has not taken over after all.
func closeHandedOver(handles ...int) {
	for _, handle := range handles {
		if windows.Closesocket(windows.Handle(handle)) != nil { // it is no socket
			_ = windows.CloseHandle(windows.Handle(handle))
		}
	}
}

// connect makes a connection over loopback, because Windows has no socketpairs; open files cannot be sent over it. Nobody
// else can take an end: each side's address is the one that the other side is connected to.
func connect() (*connection, error) {
	listener, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, fmt.Errorf("listening for a worker: %w", err)
	}
	defer func() { _ = listener.Close() }()
	// It is not Go's, which would close it, and wait for it in a way of its own.
	theirs, err := windows.Socket(windows.AF_INET, windows.SOCK_STREAM, windows.IPPROTO_TCP)
	if err != nil {
		return nil, fmt.Errorf("making a socket for a worker: %w", err)
	}
	ours, err := connectTo(listener, theirs)
	if err != nil {
		_ = windows.Closesocket(theirs)
		return nil, fmt.Errorf("connecting a worker: %w", err)
	}
	return &connection{socket: ours, theirSocket: int(theirs)}, nil
}

// connectMonitor makes the connection of a worker's monitor: Caddy's end, and the worker's, as Python calls it.
func connectMonitor() (wire.Socket, int, error) {
	c, err := connect()
	if err != nil {
		return nil, 0, err
	}
	return c.socket, c.theirSocket, nil
}

func connectTo(listener *net.TCPListener, socket windows.Handle) (net.Conn, error) {
	if err := windows.SetHandleInformation(socket, windows.HANDLE_FLAG_INHERIT, 0); err != nil {
		return nil, err
	}
	address := windows.SockaddrInet4{Port: listener.Addr().(*net.TCPAddr).Port, Addr: [4]byte{127, 0, 0, 1}}
	if err := windows.Connect(socket, &address); err != nil {
		return nil, err
	}
	if err := windows.SetsockoptInt(socket, windows.IPPROTO_TCP, windows.TCP_NODELAY, 1); err != nil {
		return nil, err
	}
	name, err := windows.Getsockname(socket)
	if err != nil {
		return nil, err
	}
	own, ok := name.(*windows.SockaddrInet4)
	if !ok {
		return nil, errors.New("the socket is not one of IPv4")
	}
	if err := listener.SetDeadline(time.Now().Add(connectTimeout)); err != nil {
		return nil, err
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			return nil, err
		}
		if client := conn.RemoteAddr().(*net.TCPAddr); client.Port == own.Port && client.IP.Equal(own.Addr[:]) {
			return conn, nil
		}
		_ = conn.Close() // somebody else's
	}
}
