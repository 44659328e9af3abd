package caddysnake

import (
	"errors"

	"go.uber.org/zap"

	"github.com/mliezun/caddy-snake/internal/wire"
)

// launchProcess needs an inherited socketpair, which Windows does not have.
func launchProcess(settings, int, *zap.Logger) (interpreter, wire.Socket, error) {
	return nil, nil, errors.New("worker processes are not available on Windows in this version")
}

// There is no interpreter inside Caddy on Windows yet: see noThreads.

func interpreterFor(settings) (*python, error) { return nil, errors.New(noThreads) }

func (g *generation) launch(*python) launcher { return launchProcess }

func (g *generation) commit() {}

func (g *generation) rollBack() {}

func runExitFunctions() {}
