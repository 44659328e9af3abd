package caddysnake

import (
	"errors"
	"net"

	"go.uber.org/zap"
)

// launchProcess needs an inherited socketpair, which Windows does not have.
func launchProcess(settings, int, *zap.Logger) (interpreter, net.Conn, error) {
	return nil, nil, errors.New("worker processes are not available on Windows in this version")
}
