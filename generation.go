package caddysnake

import (
	"context"
	"fmt"
	"sync"

	"go.uber.org/zap"
)

// generation is what is imported together by apps whose workers are threads, see python/caddysnake/shared.py: all apps of a
// config, or one app anew. Only one is under way at a time.
type generation struct {
	number  uint64
	threads bool     // it has such apps; otherwise there is nothing to do
	roots   []string // the working_dirs of all apps that there are to be; none: those that there are stay
}

// generations counts them. Its lock is held from the beginning of a generation until it is settled.
var generations struct {
	sync.Mutex
	last uint64
}

// renewer makes a launcher for a worker that imports the app anew, to take another one's place. settle must be told whether
// it has started.
type renewer func() (launch launcher, settle func(started bool))

// newGeneration begins one: all apps with these settings.
func newGeneration(apps []settings) *generation {
	g := new(generation)
	for _, s := range apps {
		if s.WorkersRuntime == runtimeThread {
			g.roots = append(g.roots, s.WorkingDir)
		}
	}
	if len(g.roots) > 0 {
		g.begin()
	}
	return g
}

func (g *generation) begin() {
	generations.Lock()
	generations.last++
	g.number, g.threads = generations.last, true
}

// settle ends it: all apps have started, or what has started has ended.
func (g *generation) settle(started bool) {
	if !g.threads {
		return
	}
	if started {
		g.commit()
	} else {
		g.rollBack()
	}
	generations.Unlock()
}

// newPool starts the workers of one app, as processes or as threads.
func (g *generation) newPool(ctx context.Context, s settings, logger *zap.Logger) (*pool, error) {
	if s.WorkersRuntime != runtimeThread {
		return newPool(ctx, s, launchProcess, nil, logger)
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
	anew := func() (launcher, func(bool)) {
		next := new(generation)
		next.begin()
		return next.launch(python), next.settle
	}
	return newPool(ctx, s, g.launch(python), anew, logger)
}
