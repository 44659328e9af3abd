package caddysnake

import (
	"slices"
	"sync/atomic"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Apps go on running when Caddy gets another configuration, whose logs may be others: their files are elsewhere, their level
// is another one. So what outlives a configuration logs through followLogs.

// logs is what the newest configuration that runs or starts logs to. App.Start and App.Stop set it.
var logs atomic.Pointer[zapcore.Core]

// followLogs returns a logger with the name of this one, which always writes to logs.
func followLogs(logger *zap.Logger) *zap.Logger {
	return logger.WithOptions(zap.WrapCore(func(zapcore.Core) zapcore.Core { return followingCore(nil) }))
}

// followingCore is the fields of entries that logs shall get.
type followingCore []zapcore.Field

// Enabled implements zapcore.LevelEnabler.
func (c followingCore) Enabled(level zapcore.Level) bool { return (*logs.Load()).Enabled(level) }

// With implements zapcore.Core.
func (c followingCore) With(fields []zapcore.Field) zapcore.Core { return slices.Concat(c, fields) }

// Check implements zapcore.Core: the entry is written by the core of this moment.
func (c followingCore) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	core := *logs.Load()
	if !core.Enabled(entry.Level) {
		return checked
	}
	return core.With(c).Check(entry, checked)
}

// Write implements zapcore.Core.
func (c followingCore) Write(entry zapcore.Entry, fields []zapcore.Field) error {
	return (*logs.Load()).With(c).Write(entry, fields)
}

// Sync implements zapcore.Core.
func (c followingCore) Sync() error { return (*logs.Load()).Sync() }
