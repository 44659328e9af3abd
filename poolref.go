package caddysnake

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
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
	values []string                 // of the requests that lead to it; nil for an app that they do not choose
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

// await returns the pool. It waits if none is there yet, because the config starts or autoreload is about to start another
// one, and its counterpart has none either. The error is ctx's, a *failure or errPoolClosed.
func (ref *poolRef) await(ctx context.Context) (*pool, error) {
	if ref.pool.Load() == nil {
		if p := ref.early(); p != nil {
			return p, nil
		}
	}
	p, err := ref.awaitOwn(ctx)
	if errors.Is(err, errPoolClosed) || err == nil && p.closed.Load() {
		return ref.late(ctx)
	}
	return p, err
}

// awaitOwn is await for this config's pool alone.
func (ref *poolRef) awaitOwn(ctx context.Context) (*pool, error) {
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

// resume takes hold back: nothing has changed, or it takes too long. Requests get the pool that was started last. It returns
// false if there is none, so that one has to be started.
func (ref *poolRef) resume() bool {
	round := ref.currentRound()
	ref.changing.Lock()
	defer ref.changing.Unlock()
	if ref.released || !ref.isWaiting() {
		return true
	}
	if ref.held == nil {
		return false
	}
	ref.publish(round, ref.current(), ref.held, nil)
	return true
}

// isWaiting tells whether requests have to wait.
func (ref *poolRef) isWaiting() bool {
	ref.mu.Lock()
	defer ref.mu.Unlock()
	return ref.pool.Load() == nil && ref.failure == nil
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
	var before *pool // of the config before
	if other := ref.counterpart(); other != nil {
		before = other.pool.Load()
	}
	p, err := ref.acquire(context.Background(), g, s, key, s.firstWorkers(before, ref.config.autoreloads()))
	switch {
	case err == nil:
		key.setLatest()
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

// acquire takes the running pool with this key, or starts one with so many workers. It fails with errInterrupted when ctx
// is done or Caddy exits.
func (ref *poolRef) acquire(ctx context.Context, g *generation, s settings, key poolKey, workers int) (*pool, error) {
	for {
		value, _, err := pools.LoadOrNew(key, func() (caddy.Destructor, error) { return g.newPool(ctx, s, workers, ref.logger) })
		switch {
		case err == nil:
			return value.(*pool), nil
		case !errors.Is(err, errInterrupted) || ctx.Err() != nil || caddy.Exiting():
			return nil, err
		}
		// Another config, which has gone, was starting it for both.
	}
}

// renewal is another pool for an app, in place of the one that it has.
type renewal struct {
	ref      *poolRef
	round    uint64   // that of ref when this began
	settings settings // what the configuration leads to now
	key      poolKey
	before   *pool // the one that it has; nil: none
	pool     *pool
}

// renewalOf is the one among next that is for ref, nil if none is.
func renewalOf(ref *poolRef, next []*renewal) *renewal {
	for _, n := range next {
		if n.ref == ref {
			return n
		}
	}
	return nil
}

// reload starts another pool for each of these apps of one config, gives them to all further requests, and has the old ones
// drain. It returns when the new ones serve; if one does not start, all old ones go on, and the error says why.
func reload(refs ...*poolRef) error {
	apps.changing.RLock()
	defer apps.changing.RUnlock()
	var next []*renewal
	for _, ref := range refs { // in the order of App.refs, or two reloads might wait for each other
		ref.changing.Lock()
		defer ref.changing.Unlock()
		next = append(next, &renewal{ref: ref, round: ref.currentRound(), before: ref.held})
	}
	began := time.Now()
	if failed, err := renew(context.Background(), next...); err != nil {
		return failed.locate(err)
	}
	var errs []error
	for _, n := range next {
		errs = append(errs, n.locate(n.adopt(began)))
	}
	return errors.Join(errs...)
}

// locate tells in err which app it is about, since several have one name. n is nil if err says that itself.
func (n *renewal) locate(err error) error {
	if n == nil || err == nil {
		return err
	}
	place := "working_dir " + cmp.Or(n.settings.WorkingDir, n.ref.current().WorkingDir)
	if len(n.ref.values) > 0 {
		place += ", values " + strings.Join(n.ref.values, " ")
	}
	return fmt.Errorf("%w (%s)", err, place)
}

// adopt has the app's requests go to the new pool. changing is held.
func (n *renewal) adopt(began time.Time) error {
	ref := n.ref
	if !ref.publish(n.round, n.settings, n.pool, nil) {
		go ref.drop(n.key)
		return nil // autoreload is about to start what the files have become meanwhile
	}
	ref.letGo()
	ref.key, ref.held = n.key, n.pool
	ref.logger.Info("python app reloaded", zap.String("working_dir", n.settings.WorkingDir), zap.Duration("duration", time.Since(began)))
	if ref.autoreload != nil {
		return ref.autoreload.follow(n.settings.WorkingDir)
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
	n := &renewal{ref: ref, round: ref.currentRound(), before: ref.held}
	ref.letGo()
	_, err := renew(ctx, n)
	if errors.Is(err, errInterrupted) || errors.Is(err, errPoolClosed) {
		return n.settings, err
	}
	if err != nil {
		s := ref.current()
		if !ref.publish(n.round, s, nil, newFailure(s, err)) {
			return s, errInterrupted
		}
		return s, err
	}
	ref.key, ref.held = n.key, n.pool
	if !ref.publish(n.round, n.settings, n.pool, nil) {
		ref.mu.Lock()
		ref.settings = n.settings // of held
		ref.mu.Unlock()
		return n.settings, errInterrupted
	}
	return n.settings, nil
}

// renew starts other pools for apps of one config from what the configuration leads to now: all, or none. If they are
// threads, they are one generation. changing of all is held. failed is the one that err is about, if it is about one.
func renew(ctx context.Context, next ...*renewal) (failed *renewal, err error) {
	a := next[0].ref.app
	for _, n := range next {
		if n.ref.released {
			return nil, errPoolClosed
		}
		if n.settings, err = n.ref.find(); err != nil {
			return n, err
		}
	}
	if err := a.checkSharing(next); err != nil {
		return nil, err
	}
	g := new(generation)
	if next[0].settings.WorkersRuntime == runtimeThread {
		g = newGeneration(a.settings(next))
	}
	for i, n := range next {
		n.key = latestKey(n.settings).next()
		workers := n.settings.firstWorkers(n.before, true)
		if n.pool, err = n.ref.acquire(ctx, g, n.settings, n.key, workers); err != nil {
			for _, started := range next[:i] {
				started.ref.drop(started.key)
			}
			g.settle(false)
			return n, err
		}
	}
	g.settle(true)
	for _, n := range next {
		n.key.setLatest()
		n.pool.inUse.Store(true)
	}
	return nil, nil
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

// reloadApps reloads the apps with this name ("module:variable"), all if it is "": one after another, but those that share
// an interpreter together. It returns those that it has reloaded; the error is an *unknownAppError if there is none of that
// name, or tells of all that could not be reloaded.
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
	for _, group := range sharing(refs) {
		err := reload(group...)
		if errors.Is(err, errPoolClosed) { // it has ended since
			continue
		}
		if err != nil {
			for _, ref := range group {
				ref.logger.Error("reloading a python app", zap.String("working_dir", ref.current().WorkingDir), zap.Error(err))
			}
			errs = append(errs, err)
			continue
		}
		reloaded = append(reloaded, group...)
	}
	return reloaded, errors.Join(errs...)
}

// sharing groups apps: those of one config that share an interpreter, in their order, and each other one alone.
func sharing(refs []*poolRef) [][]*poolRef {
	var groups [][]*poolRef
	threads := map[*App]int{} // where their group is
	for _, ref := range refs {
		i, found := threads[ref.app]
		switch thread := ref.current().WorkersRuntime == runtimeThread; {
		case thread && found:
			groups[i] = append(groups[i], ref)
			continue
		case thread:
			threads[ref.app] = len(groups)
		}
		groups = append(groups, []*poolRef{ref})
	}
	return groups
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
