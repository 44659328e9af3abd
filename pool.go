package caddysnake

import (
	"container/list"
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

const (
	// loopWindow is how many requests may be open on one worker whose requests hold no thread: ASGI, gevent.
	loopWindow = 10_000
	// maxAhead is how many requests a WSGI worker may hold beyond its threads.
	maxAhead = 64
	// aheadTime is how much work a WSGI worker may hold beyond its threads; docs/adr/0004-window-of-a-wsgi-worker.md has
	// figures.
	aheadTime = 5 * time.Millisecond
)

var (
	errQueueFull   = errors.New("too many requests wait for a worker")
	errQueueTime   = errors.New("no worker had room in time")
	errNotStarting = errors.New("the app does not start; what is wrong is in the log")
	errPoolClosed  = errors.New("the app is shutting down")
	errInterrupted = errors.New("caddy is shutting down")
)

// pool runs the workers of one app: it has a slot for each, picks one for each request, and queues what finds no room. How
// workers are started and replaced is in slot.go, how the pool ends in drain.go.
type pool struct {
	settings settings
	began    time.Time // when its workers began to start: its code is not newer
	launch   launcher
	anew     renewer // nil: launch does for a replacement too
	logger   *zap.Logger

	ctx         context.Context // ends when no worker is to be started any more
	cancel      context.CancelFunc
	supervisors sync.WaitGroup
	renewing    chan struct{} // holds a token while a worker that is well is being replaced: one after another

	mu        sync.Mutex             // guards the fields below, and those of each worker that say so
	slots     map[int]*slot          // by number
	alive     map[*worker]struct{}   // from their start until they are over
	workers   []*worker              // those that are ready
	turn      int                    // where the search for the least loaded one begins, so that equals take turns
	waiting   list.List              // of *waiter, in order of arrival
	open      int                    // requests that hold a place on a worker
	peak      int                    // the most that were open or waiting since the scaler has looked
	sockets   int                    // streams on a worker that have become WebSockets
	traceback string                 // of the last worker that failed to start; "" once one has started
	ending    bool                   // nobody will bring further requests, but those that are here may go on
	closed    atomic.Bool            // no further request gets a place; set with mu held
	lasting   map[*exchange]struct{} // requests that wait for their clients, see clients.go

	webSockets map[*webSocket]struct{} // those whose clients are still there
	shut       bool                    // WebSockets are closed as soon as they are accepted
	draining   time.Time               // when the drain timeout is over; zero: it does not run yet

	inUse    atomic.Bool   // a config that holds the pool has started
	outdated atomic.Bool   // its files have been saved anew: whoever develops wants to see what they are now
	overdue  chan struct{} // closed when the drain timeout is over
	drained  chan struct{} // closed when the last request is through and none is expected; then closed is true
	stopping sync.Once

	wanted chan struct{} // holds a token when the scaler is to look; nil: there is none
}

// waiter is a request in the queue.
type waiter struct {
	place chan *worker // gets one worker, or is closed
	err   error        // why it is closed; set before it is
}

// newPool is startPool with as many workers as there are at least.
func newPool(ctx context.Context, s settings, launch launcher, anew renewer, logger *zap.Logger) (*pool, error) {
	return startPool(ctx, s, s.Workers, launch, anew, logger)
}

// startPool starts so many workers, all at once, and returns when each is ready. It fails with the first reason that a worker
// gives, after Settings.StartTimeout, or when ctx is done or Caddy is told to stop; nothing is left running then. anew may
// be nil.
func startPool(ctx context.Context, s settings, workers int, launch launcher, anew renewer, logger *zap.Logger) (*pool, error) {
	p := &pool{
		settings: s, began: time.Now(), launch: launch, anew: anew, logger: logger,
		renewing: make(chan struct{}, 1), slots: map[int]*slot{}, alive: map[*worker]struct{}{},
		lasting: map[*exchange]struct{}{}, webSockets: map[*webSocket]struct{}{},
		overdue: make(chan struct{}), drained: make(chan struct{}),
	}
	if s.MaxWorkers > 0 {
		p.wanted = make(chan struct{}, 1)
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	first := make(chan error, workers)
	for range workers {
		p.addSlot(first)
	}
	if err := p.awaitStart(ctx, first, workers); err != nil {
		p.cancel()
		p.supervisors.Wait()
		return nil, err
	}
	if s.threaded() {
		go p.watchClients()
	}
	if s.MaxMemory > 0 {
		go p.watchMemory()
	}
	if p.wanted != nil {
		go p.scale(workers)
	}
	livePools.Store(p, nil)
	if caddy.Exiting() { // and drainAll may have looked before
		go p.drainBeforeExit()
	}
	logger.Info("python app started", zap.Int("workers", workers), zap.Duration("duration", time.Since(p.began)))
	return p, nil
}

func (p *pool) awaitStart(ctx context.Context, first <-chan error, workers int) error {
	var timeout <-chan time.Time
	if p.settings.StartTimeout > 0 {
		timer := time.NewTimer(p.settings.StartTimeout)
		defer timer.Stop()
		timeout = timer.C
	}
	// Caddy tells nobody that it was asked to exit while a config is still loading.
	exiting := time.NewTicker(100 * time.Millisecond)
	defer exiting.Stop()
	for ready := 0; ready < workers; {
		select {
		case err := <-first:
			if err != nil {
				return p.startFailure(err)
			}
			ready++
		case <-timeout:
			return fmt.Errorf("python app %q did not start within %s: %d of %d workers are ready; raise start_timeout if it needs longer",
				p.settings.App, p.settings.StartTimeout, ready, workers)
		case <-ctx.Done():
			return errInterrupted
		case <-exiting.C:
			if caddy.Exiting() {
				return errInterrupted
			}
		}
	}
	return nil
}

// startFailure names the app in err, unless the worker has done that: what it says about an import begins with the setting.
func (p *pool) startFailure(err error) error {
	if own, ok := errors.AsType[*startError](err); ok && strings.HasPrefix(own.message, "module_") {
		return err
	}
	return fmt.Errorf("python app %q: %w", p.settings.App, err)
}

// acquire gives the request a place on the least loaded worker, waiting in the queue if none has room. The worker frees
// the place when it closes the stream; a place that is not used must be given back with release.
func (p *pool) acquire(ctx context.Context) (*worker, error) {
	p.mu.Lock()
	if p.closed.Load() {
		p.mu.Unlock()
		return nil, errPoolClosed
	}
	if p.waiting.Len() == 0 {
		if w := p.pick(); w != nil {
			p.take(w)
			p.mu.Unlock()
			return w, nil
		}
	}
	if p.waiting.Len() >= p.settings.QueueSize {
		p.mu.Unlock()
		return nil, errQueueFull
	}
	if p.isHopeless() {
		p.mu.Unlock()
		return nil, errNotStarting
	}
	wt := &waiter{place: make(chan *worker, 1)}
	element := p.waiting.PushBack(wt)
	p.peak = max(p.peak, p.open+p.waiting.Len())
	nobody := len(p.workers) == 0
	p.mu.Unlock()
	if nobody && p.wanted != nil {
		p.want()
	}

	var timeout <-chan time.Time
	if p.settings.QueueTimeout > 0 {
		timer := time.NewTimer(p.settings.QueueTimeout)
		defer timer.Stop()
		timeout = timer.C
	}
	err := errQueueTime
	select {
	case w, ok := <-wt.place:
		if !ok {
			return nil, wt.err
		}
		return w, nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-timeout:
	}
	p.mu.Lock()
	p.waiting.Remove(element) // does nothing if a place was given meanwhile, or refused
	p.checkDrained()
	p.mu.Unlock()
	select {
	case w, ok := <-wt.place:
		if ok {
			p.release(w, false)
		}
	default:
	}
	return nil, err
}

// release frees a place on w; declined: the worker could not begin the request, so it is to get fewer for a while.
func (p *pool) release(w *worker, declined bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.state == stateStopping {
		return // remove has freed all its places
	}
	w.open--
	p.open--
	w.pace.finished(w.open == 0, declined)
	w.checkIdle()
	p.serveQueue()
	p.checkDrained()
}

// hold notes how many threads of w run on behind their responses: they begin no request.
func (p *pool) hold(w *worker, held int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w.held = held
	p.serveQueue()
}

// add makes a worker that is ready available, unless it has died since.
func (p *pool) add(w *worker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.state == stateStopping {
		return
	}
	p.traceback = ""
	w.slot.failing = false
	p.putInService(w)
}

// withdraw keeps further requests from a worker. It may be called more than once.
func (p *pool) withdraw(w *worker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.state >= stateDraining {
		return
	}
	w.state = stateDraining
	p.dropReady(w)
	w.checkIdle()
}

// restore gives requests again, for a while at least, to a worker that was withdrawn and whose successor could not start.
func (p *pool) restore(w *worker, pause time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w.spared = time.Now().Add(pause)
	if w.state != stateDraining {
		return
	}
	w.condemned, w.idle = false, make(chan struct{})
	p.putInService(w)
}

// putInService lets w get requests. It is called with mu held.
func (p *pool) putInService(w *worker) {
	w.state = stateReady
	p.workers = append(p.workers, w)
	p.serveQueue()
}

// remove takes a worker out and frees its places. It may be called more than once.
func (p *pool) remove(w *worker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.state == stateStopping {
		return
	}
	w.state = stateStopping
	p.dropReady(w)
	p.open -= w.open
	p.sockets -= w.sockets
	p.checkDrained()
}

// dropReady takes w out of those that get requests. It is called with mu held.
func (p *pool) dropReady(w *worker) {
	p.workers = slices.DeleteFunc(p.workers, func(other *worker) bool { return other == w })
}

// forget says that a worker is over.
func (p *pool) forget(w *worker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.alive, w)
}

// pick returns the worker with the least load, then the fewest WebSockets, among those that have room, or nil. It
// is called with mu held.
func (p *pool) pick() *worker {
	var best *worker
	n := len(p.workers)
	if n == 0 {
		return nil
	}
	p.turn++
	for i := range n {
		w := p.workers[(p.turn+i)%n]
		if w.load() < w.window() && (best == nil || best.busierThan(w)) {
			best = w
		}
	}
	return best
}

// take books a place on w. It is called with mu held.
func (p *pool) take(w *worker) {
	if w.open == 0 {
		w.pace.busy()
	}
	w.open++
	p.open++
	if p.open > p.peak {
		p.peak = p.open
	}
	if w.requests++; w.requests == w.limit {
		w.renew(byRequests)
	}
}

// isHopeless tells whether nobody serves and the last attempt to start a worker has failed, everywhere: who waited for the
// next one might wait for long. It is called with mu held.
func (p *pool) isHopeless() bool {
	slots := p.inUseSlots()
	working := func(s *slot) bool { return !s.failing }
	return len(p.workers) == 0 && len(slots) > 0 && !slices.ContainsFunc(slots, working)
}

// fail notes that a worker could not be started. Who waits is refused if nobody serves.
func (p *pool) fail(s *slot) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.failing = true
	if p.isHopeless() {
		p.refuse(errNotStarting)
	}
}

// refuse ends the waiting of all who wait. It is called with mu held.
func (p *pool) refuse(err error) {
	for p.waiting.Len() > 0 { // each is removed, so that who leaves at this moment does not remove it once more
		wt := p.waiting.Remove(p.waiting.Front()).(*waiter)
		wt.err = err
		close(wt.place)
	}
	p.checkDrained()
}

// serveQueue gives places to those who wait. It is called with mu held.
func (p *pool) serveQueue() {
	for p.waiting.Len() > 0 {
		w := p.pick()
		if w == nil {
			return
		}
		p.take(w)
		wt := p.waiting.Remove(p.waiting.Front()).(*waiter)
		wt.place <- w
	}
}

// readyWorkers are those that get requests.
func (p *pool) readyWorkers() []*worker {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.workers)
}

func (p *pool) openRequests() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open + p.sockets
}
