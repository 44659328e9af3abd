package caddysnake

import (
	"fmt"
	"os"
)

// checkPrivate fails unless path is a real folder; a user's profile is private on Windows.
func checkPrivate(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a folder", path)
	}
	return nil
}
