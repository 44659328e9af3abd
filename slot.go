package caddysnake

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"go.uber.org/zap"
)

const (
	// A worker that keeps dying is replaced after a growing delay; one that served for stableTime, and for as long as its
	// start had taken, is replaced at once.
	minBackoff = 100 * time.Millisecond
	maxBackoff = 30 * time.Second
	stableTime = time.Second
	// renewalPause is how long a worker goes on when the one that was to follow it could not start.
	renewalPause = 30 * time.Second
)

// slot is a place for one worker in a pool. Its supervisor, a goroutine, keeps a worker in it until the slot is retired:
//
//	start ──> serving ──────────────> retired: drain, stop
//	  ▲          │  │ renew: start another, swap, drain and stop the old one; if it does not start, the old one goes on
//	  └── died ──┘  └──> serving
//
// Only the supervisor starts and stops the slot's workers. What a worker goes through is in worker.go.
type slot struct {
	pool   *pool
	id     int // the number of its workers, from 1
	logger *zap.Logger

	ctx     context.Context // ends when the slot is retired, and with the pool
	retire  context.CancelFunc
	failing bool // the last attempt to start a worker has failed; guarded by pool.mu

	// Only the supervisor uses these.
	launch  launcher
	old     *worker          // the last one that was replaced while it was well; nil: none was
	backoff time.Duration    // before the next start of a worker in place of one that died
	aged    <-chan time.Time // gets something when the worker has served for max_age
	again   <-chan time.Time // when to try a renewal again that has failed; nil if none has
}

// addSlot adds a place for a worker, with the lowest number that is free, and starts one. How the start went is sent to
// first; if it failed, the slot has ended. Without first, it is tried again and again.
func (p *pool) addSlot(first chan<- error) *slot {
	p.mu.Lock()
	defer p.mu.Unlock()
	id := 1
	for p.slots[id] != nil {
		id++
	}
	s := &slot{pool: p, id: id, launch: p.launch, logger: p.logger.With(zap.Int("worker", id))}
	s.ctx, s.retire = context.WithCancel(p.ctx)
	p.slots[id] = s
	p.supervisors.Go(func() {
		s.supervise(first)
		s.retire()
		p.mu.Lock()
		delete(p.slots, id)
		p.mu.Unlock()
	})
	return s
}

// supervise keeps a worker in the slot until that is retired.
func (s *slot) supervise(first chan<- error) {
	var w *worker
	var err error
	if first != nil {
		w, err = s.start(s.launch, 0) // the pool has a timeout for all
		first <- err
		if err != nil {
			return
		}
	} else if w = s.startAgain(); w == nil {
		return
	}
	for {
		select {
		case <-w.over:
			if w = s.replaceDead(w); w == nil {
				return
			}
		case reason := <-w.renewal:
			if s.again == nil || !w.isServing() {
				w = s.replaceLive(w, reason)
			}
		case <-s.aged:
			if s.again == nil {
				w = s.replaceLive(w, byAge)
			}
		case <-s.again:
			s.again = nil
			w = s.replaceLive(w, "another attempt")
		case <-s.ctx.Done():
			w.retire()
			return
		}
	}
}

// renew has the worker replaced by a new one, which takes its place when it is ready; nobody notices. It does not wait.
func (w *worker) renew(reason string) {
	select {
	case w.renewal <- reason:
	default: // it is about to be
	}
}

// start starts a worker, which gets requests as soon as it is ready. It fails with the reason that the worker gives, after
// timeout (0: never), and with errInterrupted when the slot is retired; nothing is left then.
func (s *slot) start(launch launcher, timeout time.Duration) (*worker, error) {
	chosen := s.pool.settings.Confined
	seen, err := sight(chosen)
	if err != nil {
		return nil, err
	}
	w, err := s.pool.launchWorker(s, launch)
	if err != nil {
		return nil, err
	}
	var late <-chan time.Time
	if timeout > 0 {
		timer := time.NewTimer(timeout)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case err = <-w.ready:
	case <-w.over:
		select {
		case err = <-w.ready: // it said why before it ended
		default:
			err = fmt.Errorf("the worker ended before it was ready: %s", w.interp.Reason())
		}
	case <-late:
		err = fmt.Errorf("the worker was not ready within %s; raise start_timeout if it needs longer", timeout)
	case <-s.ctx.Done():
		err = errInterrupted
	}
	if err == nil {
		err = seen.check(chosen)
	}
	if err != nil {
		s.pool.logStartError(s.logger, err)
		w.kill()
		return nil, err
	}
	w.served = time.Now()
	s.pool.add(w)
	s.aged = s.pool.settings.age()
	return w, nil
}

// replaceDead starts a worker in place of one that has died. It returns nil if the slot is retired first.
func (s *slot) replaceDead(w *worker) *worker {
	s.again = nil
	if time.Since(w.served) >= max(stableTime, w.served.Sub(w.began)) {
		s.backoff = 0
	}
	s.logger.Error("worker exited", zap.Error(w.cause), zap.Duration("replaced_after", s.backoff))
	if !s.pause() {
		return nil
	}
	return s.startAgain()
}

// startAgain starts a worker, however many attempts that takes. It returns nil if the slot is retired first.
func (s *slot) startAgain() *worker {
	for {
		w, err := s.start(s.launch, s.pool.settings.StartTimeout)
		if err == nil {
			return w
		}
		if s.ctx.Err() != nil {
			return nil
		}
		s.pool.fail(s)
		s.logger.Error("worker exited", zap.Error(err), zap.Duration("replaced_after", s.backoff))
		if !s.pause() {
			return nil
		}
	}
}

// pause waits for as long as the backoff says, and raises it. It returns false if the slot is retired meanwhile.
func (s *slot) pause() bool {
	timer := time.NewTimer(s.backoff)
	defer timer.Stop()
	// Jitter keeps the workers of an app that dies by itself from all starting at the same moment.
	s.backoff = min(max(minBackoff, s.backoff*2), maxBackoff)
	s.backoff += rand.N(s.backoff / 4)
	select {
	case <-timer.C:
		return true
	case <-s.ctx.Done():
		return false
	}
}

// replaceLive starts another worker, swaps it for w, and has w end in the background when its requests are through. If the
// other one does not start, w goes on, and it is tried again later. It returns the worker that serves.
func (s *slot) replaceLive(w *worker, reason string) *worker {
	done, ok := s.awaitTurn(w)
	if !ok {
		return w
	}
	defer done()
	began := time.Now()
	launch, settle, err := s.launcherAnew()
	if err != nil {
		return w // the slot is retired
	}
	next, err := s.start(launch, s.pool.settings.StartTimeout)
	settle(err == nil)
	if err != nil {
		if s.ctx.Err() == nil {
			s.again = time.After(renewalPause)
			s.logger.Error("new worker did not start, the old one goes on",
				zap.String("reason", reason), zap.Error(err), zap.Duration("again_after", renewalPause))
			s.pool.restore(w, renewalPause)
		}
		return w
	}
	s.logger.Info("worker replaced", zap.String("reason", reason), zap.Duration("duration", time.Since(began)))
	s.launch, s.old = launch, w
	s.pool.supervisors.Go(w.retire)
	return next
}

// launcherAnew makes a launcher for a worker that is to follow another one. It fails when the slot is retired.
func (s *slot) launcherAnew() (launcher, func(started bool), error) {
	if s.pool.anew == nil {
		return s.launch, func(bool) {}, nil
	}
	return s.pool.anew(s.ctx)
}

// awaitTurn waits until the last worker that was replaced in this slot is over, so that those that drain do not pile up, and
// then until no other worker of the pool is being replaced; done must be called when w has been. A worker that gets no
// requests any more waits for nobody. It returns false if w need not be replaced any more.
func (s *slot) awaitTurn(w *worker) (done func(), ok bool) {
	if s.pool.isDraining() && w.isServing() {
		return nil, false // the whole pool drains; who waits in it needs no other worker
	}
	var oldOver <-chan struct{} // nil: there is no old one to wait for
	renewing := s.pool.renewing
	if s.old != nil {
		oldOver, renewing = s.old.over, nil
	}
	for w.isServing() {
		select {
		case <-oldOver:
			oldOver, renewing = nil, s.pool.renewing
		case renewing <- struct{}{}:
			return func() { <-s.pool.renewing }, true
		case <-w.renewal: // it may have been condemned
		case <-w.over:
			return nil, false
		case <-s.ctx.Done():
			return nil, false
		}
	}
	return func() {}, true
}
