package caddysnake

import (
	"errors"
	"io/fs"

	"go.uber.org/zap"

	"github.com/mliezun/caddy-snake/internal/wire"
)

// defaultWorkersRuntime is where workers run when nothing is set.
const defaultWorkersRuntime = runtimeThread

// noProcesses says why workers cannot be processes here.
var noProcesses = "process is not available on Windows, where workers cannot inherit their connection; use thread, the default"

// launchProcess needs an inherited socketpair, which Windows does not have; the settings refuse it.
func launchProcess(settings, int, *zap.Logger) (interpreter, wire.Socket, error) {
	return nil, nil, errors.New(noProcesses)
}

// changed has nothing to guard where there are no dynamic apps.
func changed(fs.FileInfo, fs.FileInfo) bool { return false }

// folderID likewise.
func folderID(fs.FileInfo) string { return "" }
