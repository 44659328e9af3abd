package caddysnake

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
)

// pools holds the running pools of all configs, by poolKey. A config that leaves an app as it was takes over its running
// workers.
var pools = caddy.NewUsagePool()

// poolKey tells pools apart: two with the same settings, one of which has taken the other's place, by their revision.
type poolKey struct {
	settings string // settings.key()
	revision uint64
}

// revisions are those of the pools that were started last, by settings.key(); 0 if none is there.
var revisions struct {
	mu sync.Mutex // guards of
	of map[string]uint64
}

// latestKey is the key of the pool that was started last with these settings, or of the first one.
func latestKey(s settings) poolKey {
	revisions.mu.Lock()
	defer revisions.mu.Unlock()
	key := s.key()
	return poolKey{key, revisions.of[key]}
}

// next is the key of the pool that takes the place of the one with this key.
func (k poolKey) next() poolKey { return poolKey{k.settings, k.revision + 1} }

// setLatest makes k the latest key for its settings.
func (k poolKey) setLatest() {
	revisions.mu.Lock()
	defer revisions.mu.Unlock()
	if revisions.of == nil {
		revisions.of = map[string]uint64{}
	}
	if k.revision > 0 {
		revisions.of[k.settings] = k.revision
	}
}

// forget lets go of what is known of k, whose pool has ended, unless another one has been started under it meanwhile.
func (k poolKey) forget() {
	revisions.mu.Lock()
	defer revisions.mu.Unlock()
	if _, again := pools.References(k); !again && revisions.of[k.settings] == k.revision {
		delete(revisions.of, k.settings)
	}
}

// poolRef is one app's place in a config: what runs it, and its pool, once that has started. A reload puts another pool in.
type poolRef struct {
	app    *App
	config Config                   // prepared
	find   func() (settings, error) // what the configuration leads to at present
	logger *zap.Logger

	pool atomic.Pointer[pool] // the one that requests get; nil: they have to wait, or failure says why. Written with mu held

	// changing is held while the pool is being started or replaced.
	changing sync.Mutex
	key      poolKey // of held; guarded by changing
	held     *pool   // the pool that this config counts among the users of, nil for none; guarded by changing
	released bool    // this config has gone; guarded by changing

	autoreload *autoreload // nil without it; set when the config starts

	mu       sync.Mutex    // guards the fields below
	settings settings      // those of the pool
	failure  error         // why there is no pool, with autoreload: a *failure, or errPoolClosed
	changed  chan struct{} // closed when requests need not wait any more: there is a pool or a failure
	round    uint64        // how often the app's files have changed; what was started before is old
	editions uint64        // how often pool or failure were set, see refresh.go
	revised  chan struct{} // closed when they are set the next time
}

func newPoolRef(a *App, c *Config, s settings) *poolRef {
	ref := &poolRef{
		app: a, config: *c, settings: s, logger: a.logger.With(zap.String("app", s.App)),
		changed: make(chan struct{}), revised: make(chan struct{}),
	}
	ref.find = ref.config.settings
	return ref
}

// hasSource tells whether two configs that lead to the same settings still would if files, folders and links changed.
func (c *Config) hasSource(other *Config) bool {
	return c.WorkingDir == other.WorkingDir && c.VenvPath == other.VenvPath && c.PythonPath == other.PythonPath &&
		slices.Equal(c.EnvFiles, other.EnvFiles) && c.Autoreload == other.Autoreload
}

// current returns the settings of the pool that there is, or is to be.
func (ref *poolRef) current() settings {
	ref.mu.Lock()
	defer ref.mu.Unlock()
	return ref.settings
}

// await returns the pool, waiting for it if it is not there yet: Caddy's HTTP app may start before this one, and autoreload
// may be about to start another one. The error is ctx's, a *failure or
// errPoolClosed.
func (ref *poolRef) await(ctx context.Context) (*pool, error) {
	for {
		if p := ref.pool.Load(); p != nil {
			return p, nil
		}
		ref.mu.Lock()
		changed, failure := ref.changed, ref.failure
		ref.mu.Unlock()
		if failure != nil {
			return nil, failure
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// hold has further requests wait: the files have changed. What is being started at this moment is not given to them.
func (ref *poolRef) hold() {
	ref.mu.Lock()
	defer ref.mu.Unlock()
	ref.round++
	if ref.pool.Swap(nil) != nil || ref.failure != nil {
		ref.failure, ref.changed = nil, make(chan struct{})
	}
}

func (ref *poolRef) currentRound() uint64 {
	ref.mu.Lock()
	defer ref.mu.Unlock()
	return ref.round
}

// publish gives requests the pool, or says why there is none. It does nothing and returns false if the files have changed
// since that round.
func (ref *poolRef) publish(round uint64, s settings, p *pool, why error) bool {
	ref.mu.Lock()
	defer ref.mu.Unlock()
	if ref.round != round {
		return false
	}
	waiting := ref.pool.Load() == nil && ref.failure == nil
	ref.settings, ref.failure = s, why
	ref.pool.Store(p)
	if waiting {
		close(ref.changed)
	}
	ref.revise()
	return true
}

// abandon tells requests that wait for a pool that none will come: the config has gone, or Caddy exits.
func (ref *poolRef) abandon() {
	ref.mu.Lock()
	defer ref.mu.Unlock()
	if ref.pool.Load() == nil && ref.failure == nil {
		ref.failure = errPoolClosed
		close(ref.changed)
		ref.revise()
	}
}

// start takes the running pool with the settings, or starts one, in a config that starts. With autoreload, an app that does
// not start is no error: the next save may mend it.
func (ref *poolRef) start(g *generation) (err error) {
	ref.changing.Lock()
	defer ref.changing.Unlock()
	if ref.config.autoreloads() { // first, so that no change is missed
		if ref.autoreload, err = newAutoreload(ref); err != nil {
			return err
		}
	}
	s, round := ref.current(), ref.currentRound()
	key := latestKey(s)
	p, err := ref.acquire(context.Background(), g, s, key)
	switch {
	case err == nil:
		ref.key, ref.held = key, p
		ref.publish(round, s, p, nil)
		if ref.autoreload != nil {
			ref.autoreload.catchUp(p.began)
		}
	case ref.autoreload != nil && !errors.Is(err, errInterrupted):
		ref.logger.Error("python app does not run, autoreload waits for a change", zap.Error(err))
		ref.publish(round, s, nil, newFailure(s, err))
	default:
		return err
	}
	return nil
}

// begin says that the config has started.
func (ref *poolRef) begin() {
	if p := ref.pool.Load(); p != nil {
		p.inUse.Store(true)
	}
}

// acquire takes the running pool with this key, or starts one. It fails with errInterrupted when ctx is done or Caddy exits.
func (ref *poolRef) acquire(ctx context.Context, g *generation, s settings, key poolKey) (*pool, error) {
	for {
		value, _, err := pools.LoadOrNew(key, func() (caddy.Destructor, error) { return g.newPool(ctx, s, ref.logger) })
		switch {
		case err == nil:
			key.setLatest()
			return value.(*pool), nil
		case !errors.Is(err, errInterrupted) || ctx.Err() != nil || caddy.Exiting():
			return nil, err
		}
		// Another config, which has gone, was starting it for both.
	}
}

// reload starts another pool from what the configuration leads to now, gives it to all further requests, and has the old
// one drain. It returns when the new one serves; if that does not start, the old one goes on, and the error says why.
func (ref *poolRef) reload() error {
	apps.changing.RLock()
	defer apps.changing.RUnlock()
	ref.changing.Lock()
	defer ref.changing.Unlock()
	began, round := time.Now(), ref.currentRound()
	s, key, p, err := ref.renew(context.Background())
	if err != nil {
		return err
	}
	if !ref.publish(round, s, p, nil) {
		go ref.drop(key)
		return nil // autoreload is about to start what the files have become meanwhile
	}
	ref.letGo()
	ref.key, ref.held = key, p
	ref.logger.Info("python app reloaded", zap.String("working_dir", s.WorkingDir), zap.Duration("duration", time.Since(began)))
	if ref.autoreload != nil {
		return ref.autoreload.follow(s.WorkingDir)
	}
	return nil
}

// restart is reload for autoreload: requests wait already, the old pool is let go of at once, and if the new one does not
// start, requests are told why. It fails with errInterrupted when ctx is done or the files have changed again.
func (ref *poolRef) restart(ctx context.Context) (settings, error) {
	apps.changing.RLock()
	defer apps.changing.RUnlock()
	ref.changing.Lock()
	defer ref.changing.Unlock()
	ref.letGo()
	round := ref.currentRound()
	s, key, p, err := ref.renew(ctx)
	if errors.Is(err, errInterrupted) || errors.Is(err, errPoolClosed) {
		return s, err
	}
	if err != nil {
		s = ref.current()
		if !ref.publish(round, s, nil, newFailure(s, err)) {
			return s, errInterrupted
		}
		return s, err
	}
	ref.key, ref.held = key, p
	if !ref.publish(round, s, p, nil) {
		return s, errInterrupted
	}
	return s, nil
}

// renew starts another pool from what the configuration leads to now. changing is held.
func (ref *poolRef) renew(ctx context.Context) (settings, poolKey, *pool, error) {
	if ref.released {
		return settings{}, poolKey{}, nil, errPoolClosed
	}
	s, err := ref.find()
	if err == nil {
		err = ref.app.checkSharing(ref, s)
	}
	if err != nil {
		return s, poolKey{}, nil, err
	}
	g := new(generation)
	if s.WorkersRuntime == runtimeThread {
		g = newGeneration(ref.app.settings(ref, s))
	}
	key := latestKey(s).next()
	p, err := ref.acquire(ctx, g, s, key)
	g.settle(err == nil)
	if err != nil {
		return s, key, nil, err
	}
	p.inUse.Store(true)
	return s, key, p, nil
}

// letGo lets go of the pool without waiting for its end. changing is held.
func (ref *poolRef) letGo() {
	if ref.held == nil {
		return
	}
	if ref.autoreload != nil {
		ref.held.outdated.Store(true)
	}
	ref.held = nil
	go ref.drop(ref.key)
}

// release lets go of the pool and returns when that has stopped, if nobody else holds it.
func (ref *poolRef) release() {
	if ref.autoreload != nil {
		ref.autoreload.stop()
		ref.autoreload.cancel()
	}
	ref.changing.Lock()
	defer ref.changing.Unlock()
	ref.released = true
	if ref.held != nil {
		ref.held = nil
		ref.drop(ref.key)
	}
}

// drop lets go of the pool with this key and returns when that has stopped, if nobody else holds it.
func (ref *poolRef) drop(key poolKey) {
	deleted, err := pools.Delete(key)
	if err != nil {
		ref.logger.Error("stopping a python app", zap.Error(err))
	}
	if deleted {
		key.forget()
	}
}

// reloadApps reloads the apps with this name ("module:variable"), all if it is "", one after another. The error is an
// *unknownAppError if there is none, or tells of all that could not be reloaded.
func reloadApps(name string) ([]*poolRef, error) {
	refs := liveRefs()
	if name != "" {
		found := slices.DeleteFunc(slices.Clone(refs), func(ref *poolRef) bool { return ref.current().App != name })
		if len(found) == 0 {
			return nil, &unknownAppError{name: name, refs: refs}
		}
		refs = found
	}
	var reloaded []*poolRef
	var errs []error
	for _, ref := range refs {
		err := ref.reload()
		if errors.Is(err, errPoolClosed) { // it has ended since
			continue
		}
		if err != nil {
			ref.logger.Error("reloading a python app", zap.Error(err))
			errs = append(errs, err)
			continue
		}
		reloaded = append(reloaded, ref)
	}
	return reloaded, errors.Join(errs...)
}

// liveRefs are the apps of the configs that run.
func liveRefs() []*poolRef {
	apps.mu.Lock()
	defer apps.mu.Unlock()
	var refs []*poolRef
	for _, a := range apps.live {
		refs = append(refs, a.refs...)
		for _, d := range a.dynamic {
			refs = append(refs, d.apps.Load().running()...)
		}
	}
	return refs
}
