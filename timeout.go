package caddysnake

import (
	"fmt"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

// A request has settings.RequestTimeout from when a worker is given it until its response begins. What has begun may go on
// for ever, as events and downloads do. Nobody keeps the time of a request: each worker has a goroutine that looks at what
// has been open for long.

const (
	// endTime is how long a request may go on after it was told to end; then its worker is replaced.
	endTime = 5 * time.Second
	// Overdue requests are found timeout/tickShare late at most, and every maxTick.
	tickShare        = 20
	minTick, maxTick = 10 * time.Millisecond, 500 * time.Millisecond
)

// timed is what a stream is, while requests are bounded in time. exchange is for awaitsClient alone: its client may have
// left.
type timed struct {
	exchange    *exchange
	method, uri string
}

// timeoutError is why a request has no response.
type timeoutError struct {
	limit   time.Duration
	settled chan struct{} // closed when the worker has been asked; then the rest is there
	problem string        // "" if the request was told to end
	stack   string        // "" if it is not known
}

func (e *timeoutError) Error() string {
	return fmt.Sprintf("the app did not begin its response within %s", e.limit)
}

// log writes the entry of a request that has been ended.
func (e *timeoutError) log(w *worker, uri string, from origin) {
	fields := []zap.Field{
		zap.String("method", from.method),
		zap.String("uri", uri),
		zap.Duration("request_timeout", e.limit),
	}
	for _, field := range [...]struct{ name, value string }{
		{"request_id", from.requestID}, {"problem", e.problem}, {"stack", e.stack},
	} {
		if field.value != "" {
			fields = append(fields, zap.String(field.name, field.value))
		}
	}
	w.logger.Error("python request timed out", fields...)
}

// mark says that streams up to a number were open by then.
type mark struct {
	at     time.Time
	newest uint32
}

// watchRequests ends the requests that have taken too long, and has the worker replaced if they do not end, until the
// worker is over.
func (w *worker) watchRequests(m monitor) {
	defer func() { _ = m.socket.Close() }()
	timeout := w.pool.settings.RequestTimeout
	ticker := time.NewTicker(min(max(timeout/tickShare, minTick), maxTick))
	defer ticker.Stop()
	var marks []mark // the first one is the newest of those that are older than the timeout
	for {
		select {
		case <-w.over:
			return
		case <-ticker.C:
			newest := w.conn.Newest()
			now := time.Now() // later: no stream is younger than its mark
			marks = append(marks, mark{now, newest})
			for len(marks) > 1 && now.Sub(marks[1].at) >= timeout {
				marks = marks[1:]
			}
			if now.Sub(marks[0].at) < timeout {
				continue
			}
		}
		problem, err := w.endOverdue(m, marks[0])
		if err != nil {
			w.logger.Error("worker killed", zap.Error(err))
			w.kill()
			return
		}
		count, since, others := w.conn.Expired()
		if problem == "" && count > 0 && time.Since(since) >= endTime {
			problem = "a request did not end after request_timeout"
		}
		if problem != "" {
			w.condemn(problem)
		}
		if count > 0 && !others && w.isDoomed() {
			w.stop(0) // nobody waits for what is left
			return
		}
	}
}

// endOverdue ends the requests that were open at a mark and have not begun to answer. It returns what is wrong with the
// worker as a whole, "" if nothing is; it fails if the worker does not answer, or cannot.
func (w *worker) endOverdue(m monitor, then mark) (problem string, err error) {
	var v verdict
	for _, o := range w.conn.Overdue(then.newest, then.at) {
		request := o.Note.(*timed)
		if w.pool.awaitsClient(request.exchange, then.at) {
			w.conn.Extend(o.Stream)
			continue
		}
		// From here on nothing else answers the client, nor tells the worker that it has left.
		cause := &timeoutError{limit: w.pool.settings.RequestTimeout, settled: make(chan struct{})}
		expired, waited := w.conn.Expire(o.Stream, cause)
		if !expired {
			continue
		}
		if problem == "" {
			if w.interp.Stopped() {
				err = errStopped
			} else {
				v, err = m.end(o.Stream)
			}
			switch {
			case err != nil:
				problem = err.Error()
			case !v.ended:
				problem = "its event loop is blocked"
			}
		}
		cause.problem, cause.stack = problem, v.stack
		close(cause.settled)
		if !waited {
			cause.log(w, request.uri, origin{method: request.method})
		}
	}
	return problem, err
}

// condemn has another worker take this one's place, unless it is not in service anyway; what it still does for others it may
// finish. If no other one starts, it is given requests again, see slot.replaceLive, and is not condemned for as long as it
// takes until that is tried anew.
func (w *worker) condemn(reason string) {
	w.pool.mu.Lock()
	ready := w.state == stateReady && time.Now().After(w.spared)
	w.condemned = w.condemned || ready
	w.pool.mu.Unlock()
	if ready {
		w.pool.withdraw(w)
		w.renew(reason)
	}
}

// isDoomed tells whether the worker has been condemned and will not be needed again.
func (w *worker) isDoomed() bool {
	w.pool.mu.Lock()
	defer w.pool.mu.Unlock()
	return w.condemned && (w.retired || !w.pool.draining.IsZero())
}

// awaitsClient tells whether e waits for more of its request's body, or has got some since then.
func (p *pool) awaitsClient(e *exchange, since time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, enrolled := p.lasting[e]
	return enrolled && e.upload != nil && e.upload.isReading(since)
}

// requestURI is what the client asked for, whatever has been rewritten since.
func requestURI(r *http.Request) string {
	if original, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok {
		return original.RequestURI
	}
	return r.RequestURI
}
