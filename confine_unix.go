//go:build !windows

package caddysnake

import (
	"fmt"
	"io/fs"
	"syscall"
)

// folderID tells folders apart that are there at the same time. The number of one that a process is in is not given to
// another.
func folderID(info fs.FileInfo) string {
	stat := info.Sys().(*syscall.Stat_t)
	return fmt.Sprintf("%d:%d", stat.Dev, stat.Ino)
}
