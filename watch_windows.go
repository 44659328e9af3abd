package caddysnake

// isWatchLimit tells whether the system lets nobody watch more files or folders.
func isWatchLimit(error) bool { return false }
