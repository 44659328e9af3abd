package caddysnake

import (
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/mliezun/caddy-snake/internal/websocket"
)

// livePools holds every pool (as key) from its start until its workers have ended.
var livePools sync.Map

// drainAll starts the drain timeouts of all pools when Caddy is told to exit. It does not wait. The HTTP servers wait for
// their requests, endless ones too, and only then are the pools closed; so this has to come first.
func drainAll() {
	livePools.Range(func(key, _ any) bool {
		go key.(*pool).drainBeforeExit()
		return true
	})
}

func (p *pool) drainBeforeExit() {
	p.drain()
	p.shutWebSockets()
	<-p.overdue
	p.close()
}

// closePools stops all pools, side by side: when Caddy exits and its HTTP servers have stopped.
func closePools() {
	var closing sync.WaitGroup
	livePools.Range(func(key, _ any) bool {
		closing.Go(key.(*pool).close)
		return true
	})
	closing.Wait()
}

// Destruct implements caddy.Destructor: the last config that used the pool has gone, or could not start. It returns when
// the pool has stopped.
func (p *pool) Destruct() error {
	if p.outdated.Load() {
		p.shutWebSockets()
	}
	if p.inUse.Load() {
		p.stop(lateTime)
	} else {
		p.close()
	}
	return nil
}

// close stops the pool when nobody will bring it further requests.
func (p *pool) close() { p.stop(0) }

// stop waits until the requests are through, those too that come within late, but not beyond the drain timeout, which cuts
// off what is left. Then it stops the workers and waits for them. It may be called more than once.
func (p *pool) stop(late time.Duration) {
	p.drain()
	timer := time.AfterFunc(late, p.expectNoMore)
	defer timer.Stop()
	select {
	case <-p.drained:
	case <-p.overdue:
	}
	p.stopping.Do(func() {
		p.cutOff()
		p.cancel()
		p.supervisors.Wait()
		livePools.Delete(p)
		p.logger.Info("python app stopped")
	})
}

// drain starts the drain timeout, unless it runs already. Its end closes p.overdue.
func (p *pool) drain() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.draining.IsZero() {
		return
	}
	timeout := p.drainTimeout()
	p.draining = drainEnd(timeout)
	if timeout > 0 {
		time.AfterFunc(timeout, func() { close(p.overdue) })
	}
}

// drainEnd is when a drain that begins now is over; timeout 0: in some years.
func drainEnd(timeout time.Duration) time.Time {
	if timeout == 0 {
		timeout = foreverDrain
	}
	return time.Now().Add(timeout)
}

// foreverDrain is no limit, and still a number of seconds that the worker can add to.
const foreverDrain = 10 * 365 * 24 * time.Hour

// drainEnd is when the pool's drain is over. One that has not begun has nothing to wait for.
func (p *pool) drainEnd() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.draining
}

// drainTimeout is how long requests may go on; 0: for ever.
func (p *pool) drainTimeout() time.Duration {
	timeout := p.settings.DrainTimeout
	if p.outdated.Load() && (timeout == 0 || timeout > oldInstanceTime) {
		return oldInstanceTime
	}
	return timeout
}

// isDraining tells whether the pool has begun to drain.
func (p *pool) isDraining() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.draining.IsZero()
}

// hasCutOff tells whether requests that are left on w have been cut off: with the pool, or with their worker.
func (p *pool) hasCutOff(w *worker) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed.Load() || w.cut
}

// expectNoMore says that the pool is drained as soon as it has no request.
func (p *pool) expectNoMore() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ending = true
	p.checkDrained()
}

// checkDrained closes the pool to further requests if none is expected and none is left. It is called with mu held.
func (p *pool) checkDrained() {
	if p.ending && !p.closed.Load() && !p.busy() {
		p.closed.Store(true)
		close(p.drained)
	}
}

// busy tells whether there is a request or a WebSocket. It is called with mu held.
func (p *pool) busy() bool {
	return p.open > 0 || p.waiting.Len() > 0 || len(p.lasting) > 0 || p.sockets > 0 || len(p.webSockets) > 0
}

// isBusy is busy, for those who do not hold mu.
func (p *pool) isBusy() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.busy()
}

// cutOff ends all requests that are left, if any are, and refuses further ones.
func (p *pool) cutOff() {
	p.shutWebSockets()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed.Load() {
		return
	}
	p.closed.Store(true)
	// Some, of either kind, only wait for their clients: the app is through with them.
	requests, sockets := max(p.open, len(p.lasting)), max(p.sockets, len(p.webSockets))
	logCutOff(p.logger, requests+p.waiting.Len(), sockets, p.drainTimeout())
	p.refuse(errPoolClosed)
	for w := range p.alive {
		go w.conn.ResetAll() // which waits for a worker that takes nothing, until that is killed
	}
	for e := range p.lasting {
		e.cutOff()
	}
}

// logCutOff says what the drain timeout has ended. WebSockets are expected to last until then.
func logCutOff(logger *zap.Logger, requests, sockets int, drainTimeout time.Duration) {
	level := zap.InfoLevel
	if requests > 0 {
		level = zap.WarnLevel
	}
	logger.Log(level, "requests cut off at the end of the drain timeout",
		zap.Int("requests", requests), zap.Int("websockets", sockets), zap.Duration("drain_timeout", drainTimeout))
}

// checkIdle notes that a worker that drains has nothing left. It is called with pool.mu held.
func (w *worker) checkIdle() {
	if w.state == stateDraining && w.open == 0 && w.sockets == 0 && !w.cut {
		close(w.idle)
	}
}

// cutOffWorker ends what is left on a worker that drains.
func (p *pool) cutOffWorker(w *worker) {
	p.mu.Lock()
	if w.state != stateDraining {
		p.mu.Unlock()
		return
	}
	w.cut = true
	logCutOff(w.logger, w.open, w.sockets, p.settings.DrainTimeout)
	var sockets []*webSocket
	for s := range p.webSockets {
		if s.worker == w {
			sockets = append(sockets, s)
		}
	}
	p.mu.Unlock()
	for _, s := range sockets {
		s.shut(websocket.CodeRestart, "")
	}
	go w.conn.ResetAll()
}

// Interface guard.
var _ caddy.Destructor = (*pool)(nil)
