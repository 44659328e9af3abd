package caddysnake

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
)

// The values of autoreload. It is for development: its error page tells what is of no concern to anybody else.
const (
	autoreloadOff     = "off"
	autoreloadOn      = "on"
	autoreloadBrowser = "browser" // open pages are reloaded too, see refresh.go
)

// oldInstanceTime is how long requests may go on at the old code after a save.
const oldInstanceTime = 10 * time.Second

// shownChanges is how many changed files a log entry names.
const shownChanges = 5

func (c *Config) validateAutoreload() error {
	switch c.Autoreload {
	case "", autoreloadOff, autoreloadOn, autoreloadBrowser:
		return nil
	}
	return wrong("autoreload", "%q is unknown; use on, browser or off", c.Autoreload)
}

func (c *Config) autoreloads() bool {
	return c.Autoreload == autoreloadOn || c.Autoreload == autoreloadBrowser
}

func setAutoreload(c *Config, args []string) error {
	c.Autoreload = autoreloadOn
	if len(args) > 0 {
		c.Autoreload = args[0]
	}
	return nil
}

// autoreload keeps one app as its files are. From the moment that a file changes, requests wait (poolRef.hold) until the
// new workers are ready or it is known why they are not.
type autoreload struct {
	ref  *poolRef
	wake chan struct{} // holds a token when the app is to be reloaded

	ctx    context.Context // ends with the config
	cancel context.CancelFunc

	mu        sync.Mutex // guards the fields below
	watcher   *watcher
	stopped   bool
	changed   []string           // what the next reload is for
	interrupt context.CancelFunc // ends the reload that is under way: there is a newer one
}

func newAutoreload(ref *poolRef) (*autoreload, error) {
	a := &autoreload{ref: ref, wake: make(chan struct{}, 1), interrupt: func() {}}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	if err := a.follow(ref.current().WorkingDir); err != nil {
		return nil, err
	}
	go a.run()
	return a, nil
}

// stop ends the watching. A reload that is under way goes on, because requests wait for it; cancel ends that too.
func (a *autoreload) stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stopped = true
	a.watcher.close()
	go a.resume() // what waited for its word
}

// follow watches this folder, in place of another one if there is one.
func (a *autoreload) follow(folder string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stopped || a.watcher != nil && a.watcher.root == folder {
		return nil
	}
	w, err := watch(folder, a.ref.logger, a)
	if err != nil {
		return err
	}
	if a.watcher != nil {
		a.watcher.close()
	}
	a.watcher = w
	return nil
}

// catchUp reloads the app if its files have changed since its workers began to start: it may have been running, and nobody
// have watched, or somebody whose debounce is not over.
func (a *autoreload) catchUp(began time.Time) {
	if changed := changedSince(a.ref.current().WorkingDir, began); len(changed) > 0 {
		a.fired(changed)
	}
}

// begun implements watching.
func (a *autoreload) begun() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.stopped {
		a.ref.hold()
	}
}

// calmed implements watching.
func (a *autoreload) calmed() { go a.resume() } // which may have to wait for a start

// resume has requests wait no longer: they get what was started last. If that is nothing, it is started now.
func (a *autoreload) resume() {
	if !a.ref.resume() {
		a.awaken()
	}
}

func (a *autoreload) awaken() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// fired implements watching.
func (a *autoreload) fired(changed []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stopped {
		return
	}
	a.ref.hold()
	a.changed = append(a.changed, changed...)
	a.interrupt()
	a.awaken()
}

func (a *autoreload) run() {
	for {
		select {
		case <-a.wake:
			a.reload()
		case <-a.ctx.Done():
			a.ref.abandon()
			return
		}
	}
}

// reload starts the app as it is now. If it is interrupted, the next one takes what has changed along.
func (a *autoreload) reload() {
	began := time.Now()
	ctx, interrupt := context.WithCancel(a.ctx)
	defer interrupt()
	a.mu.Lock()
	changed := a.changed
	a.changed, a.interrupt = nil, interrupt
	a.mu.Unlock()
	s, err := a.ref.restart(ctx)
	if errors.Is(err, errInterrupted) || errors.Is(err, errPoolClosed) {
		if caddy.Exiting() {
			a.ref.abandon()
		}
		a.mu.Lock()
		a.changed = append(changed, a.changed...)
		a.mu.Unlock()
		return
	}
	var names []string
	for _, path := range changed[:min(len(changed), shownChanges)] {
		if name, err := filepath.Rel(s.WorkingDir, path); err == nil {
			path = name
		}
		names = append(names, path)
	}
	fields := []zap.Field{zap.Strings("changed", names), zap.Int("files", len(changed)), zap.Duration("duration", time.Since(began))}
	if err != nil {
		a.ref.logger.Error("python app not reloaded", append(fields, zap.Error(err))...)
		return
	}
	a.ref.logger.Info("python app reloaded", fields...)
	if err := a.follow(s.WorkingDir); err != nil {
		a.ref.logger.Error("watching for autoreload", zap.Error(err))
	}
}

// failure is why an app does not run, for those who ask it while it is developed.
type failure struct {
	app       string
	message   string
	traceback string // "" if there is none
}

func (f *failure) Error() string { return f.message }

func newFailure(s settings, err error) *failure {
	f := &failure{app: s.App, message: err.Error()}
	if own, ok := errors.AsType[*startError](err); ok {
		f.traceback = own.traceback
	}
	return f
}
