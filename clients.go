package caddysnake

import (
	"net/http"
	"time"

	"github.com/mliezun/caddy-snake/internal/wire"
)

const (
	// patience is how long a client may take to send, or to take, 64 KiB that a thread waits for: a thread serves nobody
	// else meanwhile.
	patience = time.Minute
	// patienceTick is how often somebody looks at the clients.
	patienceTick = 5 * time.Second
	// cutTime is how long a client may take, once its request is cut off, to take what the app has sent it before.
	cutTime = time.Second
)

// past is the deadline that ends a Read or Write that is under way.
var past = time.Unix(1, 0)

// enrol says that e may have to wait for its client, which sends a body or is sent a response in parts, or that a worker has
// declined it.
func (p *pool) enrol(e *exchange) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lasting[e] = struct{}{}
	if p.closed.Load() {
		e.cutOff()
	}
}

// dismiss says that e no longer waits for its client.
func (p *pool) dismiss(e *exchange) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.lasting, e)
	p.checkDrained()
}

// watchClients gives up those that are too slow, until the pool is cancelled. Only threads need it: a task or a greenlet
// that waits keeps nobody waiting.
func (p *pool) watchClients() {
	ticker := time.NewTicker(patienceTick)
	defer ticker.Stop()
	for {
		select {
		case now := <-ticker.C:
			p.giveUpSlow(now)
		case <-p.ctx.Done():
			return
		}
	}
}

func (p *pool) giveUpSlow(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for e := range p.lasting {
		if e.upload != nil && e.upload.isLate(now) {
			e.upload.giveUp()
		}
		if by := e.writeBy.Load(); by != 0 && now.UnixNano() > by {
			_ = http.NewResponseController(e.w).SetWriteDeadline(past)
		}
	}
}

// enrol enrols e in the pool, once.
func (e *exchange) enrol() {
	if !e.lasting {
		e.lasting = true
		e.pool.enrol(e)
	}
}

// dismiss takes enrol back.
func (e *exchange) dismiss() {
	if e.lasting {
		e.lasting = false
		e.pool.dismiss(e)
	}
}

// cutOff has e wait no longer for its client. It is called with pool.mu held, while e is enrolled.
func (e *exchange) cutOff() {
	control := http.NewResponseController(e.w)
	if e.upload != nil && !e.upload.isFinished() {
		_ = control.SetReadDeadline(past)
	}
	_ = control.SetWriteDeadline(time.Now().Add(cutTime))
}

// allowed is how long a client may take for n bytes.
func allowed(n int) time.Duration {
	return patience * time.Duration(1+n/wire.MaxData)
}
