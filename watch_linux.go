package caddysnake

import (
	"os"
	"syscall"
	"time"
)

// changeTime is when a file was written, or came to be where it is, by the system's clock.
func changeTime(info os.FileInfo) time.Time {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return time.Unix(stat.Ctim.Unix())
	}
	return info.ModTime()
}
