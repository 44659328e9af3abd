package caddysnake

import (
	"cmp"
	"runtime"
	"slices"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
)

// ScalingConfig lets the number of workers follow the load: Workers is then the least, and may be 0.
type ScalingConfig struct {
	// The most workers. Default: as many as the least, so that the number does not change. Not for threads.
	MaxWorkers int `json:"max_workers,omitempty"`

	// How long a worker beyond the least goes on although the others would do. Default: 5m.
	IdleTimeout caddy.Duration `json:"idle_timeout,omitempty"`
}

// scaling is a ScalingConfig resolved.
type scaling struct {
	MaxWorkers  int           // 0: the number does not change
	IdleTimeout time.Duration // 0 where it has no meaning
}

const (
	defaultIdleTimeout = 5 * time.Minute
	// memoryPerWorker is what a machine, or a cgroup, must have for each worker that is started by default, in bytes.
	memoryPerWorker = 128 << 20
	// scaleTick is how often the load is looked at.
	scaleTick = 100 * time.Millisecond
	// loopTarget is how many requests, open at once, one worker is meant to have if they hold no thread.
	loopTarget = 100
	// idleParts are the parts of the idle timeout whose highest loads are remembered.
	idleParts = 10
)

// defaultWorkers is one for each CPU that the process may use: Go makes GOMAXPROCS of the affinity mask and of a cgroup's
// quota. If the memory that a cgroup may use is not enough for so many, there are fewer.
func defaultWorkers() int {
	n := runtime.GOMAXPROCS(0)
	if limit, err := memlimit.FromCgroup(); err == nil && limit > 0 {
		n = int(min(uint64(n), max(1, limit/memoryPerWorker)))
	}
	return n
}

func (c *Config) scaling() scaling {
	if c.MaxWorkers <= c.Workers {
		return scaling{}
	}
	return scaling{c.MaxWorkers, limit(c.IdleTimeout, defaultIdleTimeout)}
}

func (c *Config) validateScaling() error {
	switch {
	case c.Workers < 0:
		return wrong("workers", "%d is not possible; give 1 or more, or leave it out for one per CPU", c.Workers)
	case c.MaxWorkers < 0:
		return wrong("workers", "at most %d is not possible; give 1 or more, or leave it out", c.MaxWorkers)
	case c.MaxWorkers > 0 && c.MaxWorkers < c.Workers:
		return wrong("workers", "at least %d and at most %d is not possible; give the smaller number first", c.Workers, c.MaxWorkers)
	case c.MaxWorkers > c.Workers && cmp.Or(c.WorkersRuntime, defaultWorkersRuntime) == runtimeThread:
		return wrong("workers", "a thread costs next to nothing while it is idle, so their number does not change; give one number%s",
			advise(", or use workers_runtime process", ""))
	case c.IdleTimeout < 0:
		return wrong("idle_timeout", "%s is not possible; give a duration such as 5m", time.Duration(c.IdleTimeout))
	case c.IdleTimeout > 0 && c.MaxWorkers <= c.Workers:
		return wrong("idle_timeout", "the number of workers does not change; give it as workers MIN MAX, or remove this")
	}
	return nil
}

func setWorkers(c *Config, args []string) (err error) {
	if len(args) == 1 {
		c.Workers, err = parseCount("workers", args[0])
		return err
	}
	if c.MaxWorkers, err = parseCount("workers", args[1]); err != nil || args[0] == "0" {
		return err
	}
	c.Workers, err = parseCount("workers", args[0])
	return err
}

func setIdleTimeout(c *Config, args []string) (err error) {
	c.IdleTimeout, err = parseIdleTimeout(args[0])
	return err
}

func parseIdleTimeout(text string) (caddy.Duration, error) {
	duration, err := caddy.ParseDuration(text)
	if err != nil || duration <= 0 {
		return 0, wrong("idle_timeout", "%q is not possible; give a duration such as 5m", text)
	}
	return caddy.Duration(duration), nil
}

// load is what the number of workers follows. Only the pool's scaler uses it.
type load struct {
	peaks   [idleParts]int // the most requests at once in each part of the idle timeout, the latest one first
	turns   time.Time      // when the next part begins
	pressed bool           // requests waited at the last look
}

// scale adds workers and takes some away, until the pool is cancelled. It begins with so many, as if all had been needed.
func (p *pool) scale(workers int) {
	ticker := time.NewTicker(scaleTick)
	defer ticker.Stop()
	var l load
	l.peaks[0] = workers * p.settings.target()
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-p.wanted: // nobody is there to serve
		case <-ticker.C:
		}
		if p.grow(&l) {
			p.addSlot(nil)
			continue
		}
		for _, s := range p.shrink(&l, time.Now()) {
			s.logger.Info("worker is not needed any more", zap.Duration("idle_timeout", p.settings.IdleTimeout))
			s.retire()
		}
	}
}

// grow tells whether another worker is needed: requests wait, at this look and the last, or there is none at all.
func (p *pool) grow(l *load) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	slots := len(p.inUseSlots())
	capacity := p.settings.target() * slots
	wanted := p.open + p.waiting.Len()
	if p.settings.threaded() { // its worker may have room for more than its threads
		starting := p.settings.target() * (slots - len(p.workers))
		capacity, wanted = starting, p.waiting.Len()
	}
	pressed := wanted > capacity
	before := l.pressed
	l.pressed = pressed
	return pressed && (before || slots == 0) && slots < p.settings.MaxWorkers && !p.closed.Load()
}

// shrink returns the slots that are not needed: without them the workers would have had room for the most requests that were
// there at once within the idle timeout. A worker with an open WebSocket stays.
func (p *pool) shrink(l *load, now time.Time) []*slot {
	p.mu.Lock()
	defer p.mu.Unlock()
	l.peaks[0] = max(l.peaks[0], p.peak, p.open+p.waiting.Len())
	p.peak = 0
	most := slices.Max(l.peaks[:])
	if now.After(l.turns) {
		copy(l.peaks[1:], l.peaks[:])
		l.peaks[0] = 0
		l.turns = now.Add(p.settings.IdleTimeout / idleParts)
	}
	target := p.settings.target()
	needed := max((most+target-1)/target, p.settings.Workers)
	slots := p.inUseSlots()
	surplus := len(slots) - needed
	if surplus <= 0 {
		return nil
	}
	open := map[*slot]int{} // what its worker has to do
	for _, w := range p.workers {
		open[w.slot] = w.open
		if w.sockets > 0 {
			slots = slices.DeleteFunc(slots, func(s *slot) bool { return s == w.slot })
		}
	}
	slices.SortFunc(slots, func(a, b *slot) int { return open[a] - open[b] })
	return slots[:min(surplus, len(slots))]
}

// inUseSlots returns those that have not been retired. It is called with mu held.
func (p *pool) inUseSlots() []*slot {
	slots := make([]*slot, 0, len(p.slots))
	for _, s := range p.slots {
		if s.ctx.Err() == nil {
			slots = append(slots, s)
		}
	}
	return slots
}

// want has the scaler look at once.
func (p *pool) want() {
	select {
	case p.wanted <- struct{}{}:
	default: // it is about to
	}
}

// target is how many requests, open at once, one worker is meant to have.
func (s *settings) target() int {
	if s.threaded() {
		return s.Threads
	}
	return loopTarget
}

// firstWorkers is how many a pool begins with that takes the place of another one; nil: there is none. checked: it must not be
// taken for one that runs if the app does not start.
func (s *settings) firstWorkers(before *pool, checked bool) int {
	workers := s.Workers
	if s.MaxWorkers > s.Workers {
		if before != nil {
			workers = max(workers, min(len(before.readyWorkers()), s.MaxWorkers))
		}
		if checked {
			workers = max(workers, 1)
		}
	}
	return workers
}

// mostWorkers is how many workers there may be at once.
func (s *settings) mostWorkers() int { return max(s.Workers, s.MaxWorkers) }
