package caddysnake

import (
	"context"
	"fmt"

	"go.uber.org/zap"
)

// generation is what is imported together by apps whose workers are threads, see python/caddysnake/shared.py: all apps of a
// config, or some of them anew. Only one is under way at a time.
type generation struct {
	number  uint64
	threads bool     // it has such apps; otherwise there is nothing to do
	roots   []string // the working_dirs of all apps that there are to be; none: those that there are stay
}

// generations counts them. Its token is held from the beginning of a generation until it is settled.
var generations = struct {
	token chan struct{}
	last  uint64 // guarded by token
}{token: make(chan struct{}, 1)}

// renewer makes a launcher for a worker that imports the app anew, to take another one's place. settle must be told whether
// it has started. It fails when ctx is done.
type renewer func(ctx context.Context) (launch launcher, settle func(started bool), err error)

// newGeneration begins one: all apps with these settings.
func newGeneration(apps []settings) *generation {
	g := new(generation)
	for _, s := range apps {
		if s.WorkersRuntime == runtimeThread {
			g.roots = append(g.roots, s.WorkingDir)
		}
	}
	if len(g.roots) > 0 {
		_ = g.begin(context.Background())
	}
	return g
}

// begin waits for its turn. It fails when ctx is done.
func (g *generation) begin(ctx context.Context) error {
	select {
	case generations.token <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	generations.last++
	g.number, g.threads = generations.last, true
	return nil
}

// settle ends it: all apps have started, and Caddy goes on with them, or what has started has ended.
func (g *generation) settle(started bool) {
	if !g.threads {
		return
	}
	if started {
		g.commit()
	} else {
		g.rollBack()
	}
	<-generations.token
}

// newPool starts so many workers of one app as processes, or those that there are to be as threads.
func (g *generation) newPool(ctx context.Context, s settings, workers int, logger *zap.Logger) (*pool, error) {
	if s.WorkersRuntime != runtimeThread {
		return startPool(ctx, s, workers, launchProcess, nil, logger)
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
	anew := func(ctx context.Context) (launcher, func(bool), error) {
		next := new(generation)
		if err := next.begin(ctx); err != nil {
			return nil, nil, err
		}
		return next.launch(python), next.settle, nil
	}
	return newPool(ctx, s, g.launch(python), anew, logger)
}
