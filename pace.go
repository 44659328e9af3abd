package caddysnake

import "time"

// pacePeriod is how long a worker is watched before its pace is judged anew.
const pacePeriod = 2 * time.Millisecond

// pace tells how many requests a WSGI worker may hold beyond its threads: what it would finish in a few milliseconds.
// Batches make a fast app faster, but what waits inside one worker cannot go to an idle one; so an app that takes longer
// gets exactly its threads. The pool's lock guards it.
type pace struct {
	since  time.Time // the beginning of the period, moved on by the time that the worker was idle
	idle   time.Time // when the worker became idle
	count  int       // requests finished in the period
	perSec float64   // requests finished per second of being busy, smoothed
}

// busy says that the idle worker gets a request.
func (p *pace) busy() {
	now := time.Now()
	if p.since.IsZero() {
		p.since = now
	} else {
		p.since = p.since.Add(now.Sub(p.idle))
	}
}

// finished says that a request is done; idle: it was the last one open; declined: it was not even begun.
func (p *pace) finished(idle, declined bool) {
	now := time.Now()
	if idle {
		p.idle = now
	}
	if declined {
		p.since, p.count, p.perSec = now, 0, 0
		return
	}
	p.count++
	if busy := now.Sub(p.since); busy >= pacePeriod {
		perSec := float64(p.count) / busy.Seconds()
		if p.perSec > 0 {
			perSec = (p.perSec + perSec) / 2
		}
		p.since, p.count, p.perSec = now, 0, perSec
	}
}

// ahead is how many requests the worker may hold beyond its threads: what it would finish in aheadTime.
func (p *pace) ahead() int {
	return min(int(p.perSec*aheadTime.Seconds()), maxAhead)
}
