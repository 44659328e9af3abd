//go:build !windows

package caddysnake

import (
	"fmt"
	"os"
	"syscall"
)

// checkPrivate fails unless path is a real folder that only this user can write to.
func checkPrivate(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || info.Mode().Perm()&0o022 != 0 || !ok || int(stat.Uid) != os.Geteuid() {
		return fmt.Errorf("%s is not a folder that only this user can write to", path)
	}
	return nil
}
