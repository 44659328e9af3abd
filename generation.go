package caddysnake

import (
	"fmt"
	"sync/atomic"

	"go.uber.org/zap"
)

// generation is what the apps of one config share whose workers are threads, see python/caddysnake/shared.py.
type generation struct {
	number uint64
	roots  []string // their working_dirs
}

// generations counts them.
var generations atomic.Uint64

func newGeneration(refs []*poolRef) *generation {
	g := &generation{number: generations.Add(1)}
	for _, ref := range refs {
		if ref.settings.WorkersRuntime == runtimeThread {
			g.roots = append(g.roots, ref.settings.WorkingDir)
		}
	}
	return g
}

// newPool starts the workers of one app, as processes or as threads.
func (g *generation) newPool(s settings, logger *zap.Logger) (*pool, error) {
	if s.WorkersRuntime != runtimeThread {
		return newPool(s, launchProcess, logger)
	}
	python, err := interpreterFor(s)
	if err != nil {
		return nil, fmt.Errorf("python app %q: %w", s.App, err)
	}
	if s.Workers > 1 && !python.FreeThreaded {
		logger.Info("one worker thread serves the app, because this python has a global interpreter lock",
			zap.String("python", python.Version), zap.Int("workers_set", s.Workers))
		s.Workers = 1
	}
	return newPool(s, g.launch(python), logger)
}
