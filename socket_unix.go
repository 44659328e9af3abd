//go:build !windows && !linux

package caddysnake

import (
	"fmt"
	"net"
	"os"

	"github.com/mliezun/caddy-snake/internal/wire"
)

// newSocket makes Caddy's end of a worker's socketpair of fd, which it takes over.
func newSocket(fd int) (wire.Socket, error) {
	file := os.NewFile(uintptr(fd), "worker")
	defer func() { _ = file.Close() }() // FileConn duplicates it
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, fmt.Errorf("making a socket for a worker: %w", err)
	}
	return conn, nil
}
