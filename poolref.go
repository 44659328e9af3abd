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

// forget lets go of what is known of k, whose pool has ended.
func (k poolKey) forget() {
	revisions.mu.Lock()
	defer revisions.mu.Unlock()
	if revisions.of[k.settings] == k.revision {
		delete(revisions.of, k.settings)
	}
}

// poolRef is one app's place in a config: what runs it, and its pool, once that has started. A reload puts another pool in.
type poolRef struct {
	app    *App
	config Config // prepared; a reload finds its settings anew
	logger *zap.Logger

	pool atomic.Pointer[pool] // the one that requests get; nil: they have to wait. Written with mu held

	// changing is held while the pool is being started or replaced.
	changing sync.Mutex
	key      poolKey // of the pool that is held; guarded by changing
	held     bool    // this config counts among the pool's users; guarded by changing

	mu       sync.Mutex    // guards the fields below
	settings settings      // those of the pool
	changed  chan struct{} // closed when requests need not wait any more
}

func newPoolRef(a *App, c *Config, s settings) *poolRef {
	return &poolRef{
		app: a, config: *c, settings: s, logger: a.logger.With(zap.String("app", s.App)), changed: make(chan struct{}),
	}
}

// hasSource tells whether two configs that lead to the same settings still would if files, folders and links changed.
func (c *Config) hasSource(other *Config) bool {
	return c.WorkingDir == other.WorkingDir && c.VenvPath == other.VenvPath && c.PythonPath == other.PythonPath &&
		slices.Equal(c.EnvFiles, other.EnvFiles)
}

// current returns the settings of the pool that there is, or is to be.
func (ref *poolRef) current() settings {
	ref.mu.Lock()
	defer ref.mu.Unlock()
	return ref.settings
}

// await returns the pool, waiting for it if it is not there yet: Caddy's HTTP app may start before this one.
func (ref *poolRef) await(ctx context.Context) (*pool, error) {
	for {
		if p := ref.pool.Load(); p != nil {
			return p, nil
		}
		ref.mu.Lock()
		changed := ref.changed
		ref.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// start takes the running pool with the settings, or starts one, in a config that starts.
func (ref *poolRef) start(g *generation) error {
	ref.changing.Lock()
	defer ref.changing.Unlock()
	s := ref.current()
	key := latestKey(s)
	p, err := ref.acquire(context.Background(), g, s, key)
	if err != nil {
		return err
	}
	ref.key, ref.held = key, true
	ref.publish(p, s)
	return nil
}

// begin says that the config has started.
func (ref *poolRef) begin() {
	ref.pool.Load().inUse.Store(true)
}

// acquire takes the running pool with this key, or starts one.
func (ref *poolRef) acquire(ctx context.Context, g *generation, s settings, key poolKey) (*pool, error) {
	value, _, err := pools.LoadOrNew(key, func() (caddy.Destructor, error) { return g.newPool(ctx, s, ref.logger) })
	if err != nil {
		return nil, err
	}
	key.setLatest()
	return value.(*pool), nil
}

// publish gives the pool to requests.
func (ref *poolRef) publish(p *pool, s settings) {
	ref.mu.Lock()
	defer ref.mu.Unlock()
	ref.settings = s
	if ref.pool.Swap(p) == nil {
		close(ref.changed)
	}
}

// reload starts another pool from what the configuration leads to now, gives it to all further requests, and has the old
// one drain. It returns when the new one serves; if that does not start, the old one goes on, and the error says why.
func (ref *poolRef) reload(ctx context.Context) error {
	apps.changing.RLock()
	defer apps.changing.RUnlock()
	ref.changing.Lock()
	defer ref.changing.Unlock()
	if !ref.held {
		return errPoolClosed
	}
	began := time.Now()
	s, err := ref.config.settings()
	if err == nil {
		err = ref.app.checkSharing(ref, s)
	}
	if err != nil {
		return err
	}
	g := new(generation)
	if s.WorkersRuntime == runtimeThread {
		g = newGeneration(ref.app.settings(ref, s))
	}
	key := latestKey(s).next()
	p, err := ref.acquire(ctx, g, s, key)
	g.settle(err == nil)
	if err != nil {
		return err
	}
	p.inUse.Store(true)
	ref.publish(p, s)
	go ref.drop(ref.key)
	ref.key = key
	ref.logger.Info("python app reloaded", zap.String("working_dir", s.WorkingDir), zap.Duration("duration", time.Since(began)))
	return nil
}

// release lets go of the pool and returns when that has stopped, if nobody else holds it.
func (ref *poolRef) release() {
	ref.changing.Lock()
	defer ref.changing.Unlock()
	if ref.held {
		ref.held = false
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
		if err := ref.reload(context.Background()); err != nil {
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
	}
	return refs
}
