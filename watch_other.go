//go:build !linux

package caddysnake

import (
	"os"
	"time"
)

// changeTime is when a file was written, as far as it says so itself.
func changeTime(info os.FileInfo) time.Time { return info.ModTime() }
