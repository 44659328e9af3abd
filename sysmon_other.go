//go:build !linux

package caddysnake

// calmSysmon has nothing to do: only Linux knows scheduling policies for threads of such a kind.
func calmSysmon() error { return nil }
