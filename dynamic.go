package caddysnake

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

const (
	// A dynamic app that cannot start is tried again, when somebody asks for it, after a growing pause.
	minPause = time.Second
	maxPause = 30 * time.Second
	// sweepTick is how often, at least, somebody looks for dynamic apps that are to leave.
	sweepTick = time.Minute
	// maxStarts is how often a start is tried in a row when what the request chose is moved meanwhile.
	maxStarts = 3
)

var errTooManyApps = errors.New("all places for dynamic apps are taken by apps that are busy; raise max_dynamic_apps")

// dynamicApps is the running apps of one template: those that requests have asked for lately.
//
//	asked for ──> starting ──> running ──> leaving: idle for long, the least recently used, or changed
//	                  └──> failed: a pause, then it may start again
//
// What a request has in the template's placeholders tells them apart, so that a request for a running app touches no file.
// Each runs in a pool of the UsagePool, as other apps do.
type dynamicApps struct {
	template *appTemplate
	logger   *zap.Logger
	places   chan struct{} // holds one value for each app that starts, runs or leaves; nil: no limit
	over     chan struct{} // closed when no config uses the apps any more

	mu     sync.Mutex             // guards the fields below, and those of each app that say so
	apps   map[string]*dynamicApp // those that start, run or have failed, by values
	live   int                    // those of them that have not failed, and those that leave although they may be busy
	closed bool                   // none is to start any more
}

// dynamicApp is one of them.
type dynamicApp struct {
	values []string // of the request that asked for it first
	key    string   // these in one string

	ready chan struct{} // closed when the start is over; the fields up to the next group do not change after it
	ref   *poolRef      // nil if it could not start
	err   error         // why

	requests int           // those that are in it, or wait for it; guarded by dynamicApps.mu
	used     time.Time     // when it last was seen busy; guarded by dynamicApps.mu
	running  bool          // guarded by dynamicApps.mu
	failed   bool          // guarded by dynamicApps.mu
	pause    time.Duration // after this failure; guarded by dynamicApps.mu
	again    time.Time     // when it may start again; guarded by dynamicApps.mu
}

// dynamicStarts are the starts that are under way. When Caddy exits they give up, which has to be awaited.
var dynamicStarts sync.WaitGroup

func newDynamicApps(t *appTemplate, logger *zap.Logger) *dynamicApps {
	d := &dynamicApps{template: t, logger: logger, over: make(chan struct{}), apps: map[string]*dynamicApp{}}
	if t.maxApps > 0 {
		d.places = make(chan struct{}, t.maxApps)
	}
	go d.sweep()
	return d
}

// acquire returns the app that the request asks for, which is started if it does not run; concurrent requests start it
// once, and it goes on starting when they leave. release must be called when the request is through. An error is one that
// Caddy answers with its status: 404 if there is no such app, 503 if it cannot run now.
func (d *dynamicApps) acquire(w http.ResponseWriter, r *http.Request) (*dynamicApp, error) {
	values, err := d.template.values(r)
	if err != nil {
		return nil, caddyhttp.Error(http.StatusNotFound, err)
	}
	key := strings.Join(values, placeholderMark)
	a, err := d.enter(key)
	if a == nil && err == nil {
		if _, _, err := d.template.locate(values); err != nil {
			// Nothing is started, so nobody has to make room, whatever becomes of the disk.
			return nil, refuseApp(w, r, &pauseError{err, time.Now()})
		}
		a, err = d.admit(key, values)
	}
	if err == nil {
		err = d.wait(r.Context(), a)
	}
	if err != nil {
		return nil, refuseApp(w, r, err)
	}
	return a, nil
}

// pauseError says that an app could not start, and when it may be tried again.
type pauseError struct {
	err   error
	until time.Time
}

func (e *pauseError) Error() string { return "the app could not start: " + e.err.Error() }

func (e *pauseError) Unwrap() error { return e.err }

// refuseApp turns the reason why there is no app for a request into Caddy's error.
func refuseApp(w http.ResponseWriter, r *http.Request, err error) error {
	if _, ok := errors.AsType[*noApp](err); ok {
		return caddyhttp.Error(http.StatusNotFound, err)
	}
	if r.Context().Err() != nil {
		return caddyhttp.Error(statusClientClosed, err)
	}
	after := 1
	if pause, ok := errors.AsType[*pauseError](err); ok {
		after = max(1, int(time.Until(pause.until)/time.Second)+1)
	}
	w.Header().Set("Retry-After", strconv.Itoa(after))
	return caddyhttp.Error(http.StatusServiceUnavailable, err)
}

// enter counts a request for an app that is there. It returns nil if the app has to be started.
func (d *dynamicApps) enter(key string) (*dynamicApp, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.enterLocked(key)
}

func (d *dynamicApps) enterLocked(key string) (*dynamicApp, error) {
	a := d.apps[key]
	switch {
	case a == nil:
		return nil, nil
	case a.failed && time.Now().Before(a.again):
		return nil, &pauseError{a.err, a.again}
	case a.failed:
		return nil, nil
	case !a.running && a.requests >= d.template.config.limits().QueueSize:
		return nil, errQueueFull
	}
	a.requests++
	a.used = time.Now()
	return a, nil
}

// admit counts a request for an app that was not there, and starts it unless somebody else has done so since.
func (d *dynamicApps) admit(key string, values []string) (*dynamicApp, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if a, err := d.enterLocked(key); a != nil || err != nil {
		return a, err
	}
	if d.closed || caddy.Exiting() {
		return nil, errPoolClosed
	}
	if d.template.maxApps > 0 && d.live >= d.template.maxApps {
		victim := d.leastRecentlyUsed()
		if victim == nil {
			return nil, errTooManyApps
		}
		d.remove(victim)
		go d.leave(victim)
	}
	a := &dynamicApp{values: values, key: key, ready: make(chan struct{}), requests: 1, used: time.Now()}
	if before := d.apps[key]; before != nil {
		a.pause = before.pause
	}
	d.apps[key] = a
	d.live++
	dynamicStarts.Go(func() { d.start(a) })
	return a, nil
}

// wait waits until the app has started. On an error the request is not counted any more.
func (d *dynamicApps) wait(ctx context.Context, a *dynamicApp) error {
	select {
	case <-a.ready:
	default:
		select {
		case <-a.ready:
		case <-ctx.Done():
			d.release(a)
			return ctx.Err()
		}
	}
	if a.err == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	a.requests--
	return &pauseError{a.err, a.again}
}

// release says that a request is through.
func (d *dynamicApps) release(a *dynamicApp) {
	d.mu.Lock()
	defer d.mu.Unlock()
	a.requests--
	a.used = time.Now()
}

// start starts the app as soon as there is a place for it: the one that it replaces may still be leaving.
func (d *dynamicApps) start(a *dynamicApp) {
	if d.places != nil {
		d.places <- struct{}{}
	}
	var err error
	for range maxStarts {
		if err = d.launch(a); !errors.Is(err, errMoved) {
			break
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	defer close(a.ready)
	if err == nil {
		a.running, a.used = true, time.Now()
		return
	}
	if d.places != nil {
		<-d.places
	}
	a.err = err
	d.live--
	if _, gone := errors.AsType[*noApp](err); gone {
		delete(d.apps, a.key)
		return
	}
	a.failed = true
	a.pause = min(max(minPause, a.pause*2), maxPause)
	a.pause += rand.N(a.pause / 4)
	a.again = time.Now().Add(a.pause)
	config := d.template.fill(a.values)
	_, app := config.app()
	d.logger.Error("dynamic app could not start", zap.String("app", app), zap.Strings("values", a.values),
		zap.String("working_dir", config.WorkingDir), zap.Error(err), zap.Duration("again_after", a.pause))
}

// launch starts the app's pool, or takes one with the same settings. It sets a.ref.
func (d *dynamicApps) launch(a *dynamicApp) error {
	find := func() (settings, error) { return d.template.resolve(a.values) }
	s, err := find()
	if err != nil {
		return err
	}
	// The app's place is in no config's App: dynamic apps outlive configs.
	ref := newPoolRef(&App{logger: d.logger.With(zap.Strings("values", a.values))}, &d.template.config, s)
	ref.find, ref.values = find, a.values
	if err := ref.start(new(generation)); err != nil {
		ref.release()
		return err
	}
	a.ref = ref
	return nil
}

// running are the places of those that run.
func (d *dynamicApps) running() []*poolRef {
	var refs []*poolRef
	for _, a := range d.list() {
		refs = append(refs, a.ref)
	}
	return refs
}

// list returns those that run.
func (d *dynamicApps) list() []*dynamicApp {
	d.mu.Lock()
	defer d.mu.Unlock()
	var list []*dynamicApp
	for _, a := range d.apps {
		if a.running {
			list = append(list, a)
		}
	}
	return list
}

// leastRecentlyUsed returns the app that is idle for longest, nil if none is. It is called with mu held.
func (d *dynamicApps) leastRecentlyUsed() *dynamicApp {
	var found *dynamicApp
	for _, a := range d.apps {
		if found != nil && !a.used.Before(found.used) {
			continue
		}
		if d.isIdle(a, time.Now()) {
			found = a
		}
	}
	return found
}

// isIdle tells whether an app runs and has nothing to do. It is called with mu held.
func (d *dynamicApps) isIdle(a *dynamicApp, now time.Time) bool {
	if !a.running {
		return false
	}
	p := a.ref.pool.Load() // with autoreload, there may be none
	if a.requests > 0 || p != nil && p.isBusy() {
		a.used = now
		return false
	}
	return true
}

// remove takes an app that is idle out, so that no request finds it any more. leave must follow. It is called with mu held.
func (d *dynamicApps) remove(a *dynamicApp) {
	delete(d.apps, a.key)
	d.live-- // its place is free soon
}

// leave stops an app that is idle, and returns when its place is free.
func (d *dynamicApps) leave(a *dynamicApp) {
	a.ref.release()
	if d.places != nil {
		<-d.places
	}
}

// retire stops an app that may be busy: its requests, those too that are just coming, have until the drain timeout.
func (d *dynamicApps) retire(a *dynamicApp) {
	a.ref.begin()
	d.leave(a)
}

// sweep has apps leave that are idle for too long, and those whose folder has gone or been replaced, until the config goes.
func (d *dynamicApps) sweep() {
	tick := sweepTick
	if idle := d.template.idleTimeout; idle > 0 {
		tick = max(min(tick, idle/4), 10*time.Millisecond)
	}
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		select {
		case now := <-ticker.C:
			d.removeIdle(now)
			d.retireGone()
		case <-d.over:
			return
		}
	}
}

func (d *dynamicApps) removeIdle(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for key, a := range d.apps {
		switch idle := d.template.idleTimeout; {
		case a.failed && now.Sub(a.again) > maxPause:
			delete(d.apps, key)
		case idle > 0 && d.isIdle(a, now) && now.Sub(a.used) >= idle:
			d.remove(a)
			go d.leave(a)
		}
	}
}

// retireGone retires the apps whose folder is there no longer, or is another one. That one's app, which has other settings,
// starts when it is asked for: what the old one has of files, variables and sessions may not be its own.
func (d *dynamicApps) retireGone() {
	for _, a := range d.list() {
		if s := a.ref.current(); !s.isReplaced() && !d.template.isGone(a.values) {
			continue
		}
		d.mu.Lock()
		if d.apps[a.key] == a {
			delete(d.apps, a.key)
			go func() {
				d.retire(a)
				d.mu.Lock()
				defer d.mu.Unlock()
				d.live-- // not before: nobody is to wait for a place that a long request keeps
			}()
		}
		d.mu.Unlock()
	}
}

// refresh reloads the apps whose settings have become others: an env file has changed, a symlink leads elsewhere.
func (d *dynamicApps) refresh() {
	d.retireGone()
	for _, a := range d.list() {
		s, err := a.ref.find()
		if err == nil && s.key() != a.ref.current().key() {
			err = reload(a.ref)
		}
		if err != nil && !errors.Is(err, errPoolClosed) {
			a.ref.logger.Error("reloading a python app", zap.String("working_dir", a.ref.current().WorkingDir), zap.Error(err))
		}
	}
}

// isOver tells whether no config uses the apps any more.
func (d *dynamicApps) isOver() bool {
	select {
	case <-d.over:
		return true
	default:
		return false
	}
}

// Destruct implements caddy.Destructor: the last config that used the apps has gone. It returns when they have stopped.
func (d *dynamicApps) Destruct() error {
	close(d.over)
	time.Sleep(lateTime) // requests that come late may ask for an app that does not run
	d.mu.Lock()
	d.closed = true
	left := d.apps
	d.apps, d.live = map[string]*dynamicApp{}, 0
	d.mu.Unlock()
	var leaving sync.WaitGroup
	for _, a := range left {
		leaving.Go(func() {
			<-a.ready
			if a.err == nil {
				d.retire(a)
			}
		})
	}
	leaving.Wait()
	return nil
}

// dynamicRef is one template's place in a config.
type dynamicRef struct {
	template *appTemplate
	apps     atomic.Pointer[dynamicApps] // nil until the config has started
	started  chan struct{}               // closed when it has, or has failed to
}

// registerDynamic notes that a handler needs the apps that c, which is prepared, leads requests to. Handlers are
// provisioned one after another.
func (a *App) registerDynamic(c Config) (*dynamicRef, error) {
	t, err := newTemplate(c)
	if err != nil {
		return nil, err
	}
	for _, ref := range a.dynamic {
		if ref.template.key() == t.key() {
			return ref, nil
		}
	}
	if t.isOpen() {
		a.logger.Warn("requests choose environment variables and nothing on disk, so whatever they ask for is started",
			zap.Strings("placeholders", t.placeholders))
	}
	ref := &dynamicRef{template: t, started: make(chan struct{})}
	a.dynamic = append(a.dynamic, ref)
	return ref, nil
}

// start takes over the running apps of the template, or begins with none.
func (ref *dynamicRef) start(logger *zap.Logger) {
	value, loaded, _ := pools.LoadOrNew(ref.template.key(), func() (caddy.Destructor, error) {
		return newDynamicApps(ref.template, logger), nil
	})
	apps := value.(*dynamicApps)
	if loaded {
		go apps.refresh()
	}
	ref.apps.Store(apps)
	close(ref.started)
}

// await returns the apps: those of its counterpart as long as the config starts, and when it has gone. Without one it waits.
func (ref *dynamicRef) await(ctx context.Context) (*dynamicApps, error) {
	own := ref.apps.Load()
	if own == nil || own.isOver() {
		if other := ref.counterpart(); other != nil {
			return other.apps.Load(), nil
		}
	}
	if own != nil {
		return own, nil
	}
	select {
	case <-ref.started:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if own = ref.apps.Load(); own != nil {
		return own, nil
	}
	if other := ref.counterpart(); other != nil {
		return other.apps.Load(), nil
	}
	return nil, errPoolClosed
}

// abandon tells requests that wait for the apps that the config has not started.
func (ref *dynamicRef) abandon() { close(ref.started) }

// release lets go of the apps, and returns when they have stopped if no other config holds them.
func (ref *dynamicRef) release(logger *zap.Logger) {
	if ref.apps.Load() == nil {
		return // the config could not start
	}
	if _, err := pools.Delete(ref.template.key()); err != nil {
		logger.Error("stopping dynamic apps", zap.Error(err))
	}
}

// serveDynamic answers a request for an app that the request itself chooses.
func (h *Handler) serveDynamic(w http.ResponseWriter, r *http.Request) error {
	apps, err := h.dynamic.await(r.Context())
	if err != nil {
		return refuseApp(w, r, err)
	}
	a, err := apps.acquire(w, r)
	if err != nil {
		return err
	}
	defer apps.release(a)
	return h.serve(w, r, a.ref)
}

// Interface guard.
var _ caddy.Destructor = (*dynamicApps)(nil)
