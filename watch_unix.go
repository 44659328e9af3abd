//go:build !windows

package caddysnake

import (
	"errors"
	"syscall"
)

// isWatchLimit tells whether the system lets nobody watch more files or folders.
func isWatchLimit(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EMFILE)
}
