package caddysnake

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/mliezun/caddy-snake/internal/marshal"
	"github.com/mliezun/caddy-snake/internal/wire"
)

const (
	// stopTimeout is how long a worker may take to exit after it was told to: lifespan shutdown, atexit functions.
	stopTimeout = 10 * time.Second
	// A worker that keeps dying is replaced after a growing delay; one that lived for stableTime is replaced at once.
	minBackoff = 100 * time.Millisecond
	maxBackoff = 30 * time.Second
	stableTime = 10 * time.Second
)

// launcher starts an interpreter that speaks frames over the connection that it returns.
type launcher func(s settings, id int, logger *zap.Logger) (interpreter, wire.Socket, error)

// interpreter is what runs a worker: a child process.
type interpreter interface {
	// Exited is closed when it has ended.
	Exited() <-chan struct{}
	// Reason says, once it has ended, why.
	Reason() string
	// Kill ends it at once. It may be called more than once.
	Kill()
	// Files is where the descriptors arrive that it sends, and the number of the socket that it sends them on; nil and 0
	// if it cannot.
	Files() (wire.FileSource, int)
}

// worker is one Python interpreter that serves the pool's app.
type worker struct {
	id     int
	pool   *pool
	conn   *wire.Conn
	logger *zap.Logger
	ready  chan error // gets one value: nil when the app is ready, or why it could not start

	open    int  // requests that hold a place; guarded by pool.mu
	sockets int  // streams that have become WebSockets; guarded by pool.mu
	gone    bool // it has been removed from the pool; guarded by pool.mu
	pace    pace // guarded by pool.mu
}

// busierThan compares what is open. It is called with pool.mu held.
func (w *worker) busierThan(other *worker) bool {
	return w.open > other.open || w.open == other.open && w.sockets > other.sockets
}

// window is how many requests may be open on the worker. It is called with pool.mu held.
func (w *worker) window() int {
	if !w.pool.settings.threaded() {
		return loopWindow
	}
	return w.pool.settings.Threads + w.pace.ahead()
}

// startError is the reason that the worker itself gave for not starting.
type startError struct {
	message   string
	traceback string
}

func (e *startError) Error() string { return e.message }

// supervise keeps one worker running until the pool is cancelled. How the first start went is sent to first; if it
// failed, there is no second one.
func (p *pool) supervise(id int, first chan<- error) {
	defer p.supervisors.Done()
	logger := p.logger.With(zap.Int("worker", id))
	var backoff time.Duration
	for {
		began := time.Now()
		started, err := p.runWorker(id, logger, first)
		if p.ctx.Err() != nil {
			if first != nil && !started {
				first <- errInterrupted
			}
			return
		}
		if !started && first != nil {
			first <- err
			return
		}
		first = nil
		if started && time.Since(began) >= stableTime {
			backoff = 0
		}
		logger.Error("worker exited", zap.Error(err), zap.Duration("replaced_after", backoff))
		select {
		case <-time.After(backoff):
		case <-p.ctx.Done():
			return
		}
		// Jitter keeps the workers of an app that dies by itself from all starting at the same moment.
		backoff = min(max(minBackoff, backoff*2), maxBackoff)
		backoff += rand.N(backoff / 4)
	}
}

// runWorker runs a worker from its start to its end. It returns whether it became ready, and why it ended.
func (p *pool) runWorker(id int, logger *zap.Logger, first chan<- error) (started bool, err error) {
	interp, rw, err := p.launch(p.settings, id, logger)
	if err != nil {
		return false, err
	}
	w := &worker{id: id, pool: p, logger: logger, ready: make(chan error, 1)}
	files, descriptors := interp.Files()
	w.conn = wire.NewConn(rw, files, w)
	ended := make(chan error, 1)
	go func() { ended <- w.conn.Run() }()
	defer func() {
		w.conn.Close()
		interp.Kill()
		<-interp.Exited()
	}()
	if err := w.conn.Control(wire.Start, startHead(p.settings, id, descriptors)); err != nil {
		return false, err
	}

	select {
	case err := <-w.ready:
		if err != nil {
			p.logStartError(logger, err)
			return false, err
		}
	case <-ended:
		select {
		case err := <-w.ready: // it said why before it ended
			p.logStartError(logger, err)
			return false, err
		default:
		}
		interp.Kill()
		<-interp.Exited()
		return false, fmt.Errorf("the worker ended before it was ready: %s", interp.Reason())
	case <-p.ctx.Done():
		return false, p.ctx.Err()
	}

	p.add(w)
	if first != nil {
		first <- nil
	}
	select {
	case err = <-ended:
		p.remove(w)
		return true, w.endReason(err, interp)
	case <-interp.Exited():
		// What it still sent is read; a process that it forked may hold the connection open.
		time.AfterFunc(time.Second, w.conn.Close)
		<-ended
		p.remove(w)
		return true, fmt.Errorf("the worker ended: %s", interp.Reason())
	case <-p.ctx.Done():
		p.remove(w)
		w.stop(interp)
		return true, nil
	}
}

// logStartError logs the traceback of an app that could not start; the same one is logged once, whichever workers and
// however often they fail with it.
func (p *pool) logStartError(logger *zap.Logger, err error) {
	own, ok := errors.AsType[*startError](err)
	if !ok || own.traceback == "" {
		return
	}
	p.mu.Lock()
	known := p.traceback == own.traceback
	p.traceback = own.traceback
	p.mu.Unlock()
	fields := []zap.Field{zap.String("error", own.message)}
	if !known {
		fields = append(fields, zap.String("traceback", own.traceback))
	}
	logger.Error("python app failed to start", fields...)
}

// endReason says why a worker's connection ended while nobody wanted it to.
func (w *worker) endReason(err error, interp interpreter) error {
	if errors.Is(err, wire.ErrProtocol) {
		return err
	}
	select {
	case <-interp.Exited():
	case <-time.After(time.Second):
		interp.Kill()
		<-interp.Exited()
	}
	return fmt.Errorf("the worker ended: %s", interp.Reason())
}

// stop ends the worker: it finishes what is open, runs lifespan shutdown and exits, or is killed.
func (w *worker) stop(interp interpreter) {
	if err := w.conn.Control(wire.Stop, nil); err != nil {
		w.logger.Error("telling a worker to stop", zap.Error(err))
	}
	timer := time.NewTimer(stopTimeout)
	defer timer.Stop()
	select {
	case <-interp.Exited():
	case <-timer.C:
		w.logger.Warn("worker did not stop in time", zap.Duration("timeout", stopTimeout))
	}
}

// startHead is the head of START.
func startHead(s settings, id, descriptors int) []byte {
	b := marshal.AppendDict(nil)
	b = marshal.AppendString(marshal.AppendKey(b, "interface"), s.Interface)
	b = marshal.AppendString(marshal.AppendKey(b, "app"), s.App)
	b = marshal.AppendInt(marshal.AppendKey(b, "worker"), int64(id))
	b = marshal.AppendInt(marshal.AppendKey(b, "workers"), int64(s.Workers))
	b = marshal.AppendString(marshal.AppendKey(b, "runtime"), s.Runtime)
	b = marshal.AppendInt(marshal.AppendKey(b, "threads"), int64(s.Threads))
	b = marshal.AppendString(marshal.AppendKey(b, "lifespan"), s.Lifespan)
	b = marshal.AppendString(marshal.AppendKey(b, "working_dir"), s.WorkingDir)
	b = marshal.AppendInt(marshal.AppendKey(b, "descriptors"), int64(descriptors))
	return marshal.AppendDictEnd(b)
}

// Control implements wire.Handler.
func (w *worker) Control(f wire.Frame) error {
	switch f.Type {
	case wire.Ready:
		w.setReady(nil)
		return nil
	case wire.Failed:
		message, traceback, err := decodeFailure(f.Head)
		if err == nil {
			w.setReady(&startError{message: message, traceback: traceback})
		}
		return err
	case wire.Log:
		return w.log(f.Head)
	default:
		return fmt.Errorf("%w: type %d on stream 0", wire.ErrProtocol, f.Type)
	}
}

func (w *worker) setReady(err error) {
	select {
	case w.ready <- err:
	default: // only the first one counts
	}
}

// Closed implements wire.Handler.
func (w *worker) Closed(declined, accepted bool) {
	if accepted {
		w.pool.releaseSocket(w)
		return
	}
	w.pool.release(w, declined)
}

// Accepted implements wire.Handler.
func (w *worker) Accepted() { w.pool.accepted(w) }

// log writes a LOG frame's entry.
func (w *worker) log(head []byte) error {
	r := marshal.NewReader(head)
	if n := r.Sequence(); n != 3 {
		return fmt.Errorf("%w: a log entry of %d parts", wire.ErrProtocol, n)
	}
	level, _ := r.Text()
	message, _ := r.Text()
	fields := r.Value()
	if err := r.End(); err != nil {
		return fmt.Errorf("%w: log entry: %w", wire.ErrProtocol, err)
	}
	parsed, err := zapcore.ParseLevel(string(level))
	if err != nil || parsed > zapcore.ErrorLevel {
		parsed = zapcore.ErrorLevel
	}
	entry := w.logger.Check(parsed, string(message))
	if entry == nil {
		return nil
	}
	dict, _ := fields.(map[string]any)
	zapFields := make([]zap.Field, 0, len(dict))
	for key, value := range dict {
		zapFields = append(zapFields, zap.Any(key, value))
	}
	entry.Write(zapFields...)
	return nil
}

// decodeFailure reads the head of FAILED or ERROR.
func decodeFailure(head []byte) (message, traceback string, err error) {
	r := marshal.NewReader(head)
	if n := r.Sequence(); n != 2 && r.Err() == nil {
		return "", "", fmt.Errorf("%w: a failure of %d parts", wire.ErrProtocol, n)
	}
	m, _ := r.Text()
	t, _ := r.Text()
	if err := r.End(); err != nil {
		return "", "", fmt.Errorf("%w: failure: %w", wire.ErrProtocol, err)
	}
	return string(m), string(t), nil
}

// Interface guard.
var _ wire.Handler = (*worker)(nil)
