package caddysnake

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/mliezun/caddy-snake/internal/marshal"
	"github.com/mliezun/caddy-snake/internal/wire"
)

// stopTimeout is how long a worker may take to exit once nothing of its requests runs any more: lifespan shutdown, atexit
// functions.
const stopTimeout = 10 * time.Second

// launcher starts an interpreter that speaks frames over the connection that it returns.
type launcher func(s settings, id int, logger *zap.Logger) (interpreter, wire.Socket, error)

// interpreter is what runs a worker: a child process, or a thread inside Caddy.
type interpreter interface {
	// Exited is closed when it has ended.
	Exited() <-chan struct{}
	// Reason says, once it has ended, why.
	Reason() string
	// Kill ends it at once. It may be called more than once.
	Kill()
	// Pid is the number of the process that it runs in.
	Pid() int
	// Stopped tells whether a signal has stopped it, and it has not been continued.
	Stopped() bool
	// Files is where the descriptors arrive that it sends, and the number of the socket that it sends them on; nil and 0
	// if it cannot.
	Files() (wire.FileSource, int)
	// Monitor is Caddy's end of the socket that its monitor answers on, which is the worker's to close, and the number of
	// its own end; nil and 0 if it has none.
	Monitor() (wire.Socket, int)
}

// A worker's state. Each one is followed by the next, or by the last.
type workerState int

const (
	stateStarting workerState = iota // its app is being imported
	stateReady                       // it gets requests
	stateDraining                    // it finishes those that it has, and gets no further ones
	stateStopping                    // its places are free again: it was told to stop, or it has died
)

// String returns the state's name, as the admin API has it.
func (s workerState) String() string {
	return [...]string{"starting", "ready", "draining", "stopping"}[s]
}

// worker is one Python interpreter that serves the pool's app.
type worker struct {
	id     int
	pool   *pool
	slot   *slot
	conn   *wire.Conn
	interp interpreter
	logger *zap.Logger
	began  time.Time
	served time.Time  // when it was ready; only its slot uses it
	ready  chan error // gets one value: nil when the app is ready, or why it could not start

	renewal chan string // holds why it is to be replaced, if it is; see renew

	told  atomic.Bool   // stop has told it to exit
	quiet chan struct{} // gets a value when nothing of its requests runs any more, after that
	over  chan struct{} // closed when nothing is left of it
	cause error         // why it ended; set before over is closed

	state     workerState   // guarded by pool.mu
	open      int           // requests that hold a place; guarded by pool.mu
	held      int           // threads that run on behind their responses; guarded by pool.mu
	sockets   int           // streams that have become WebSockets; guarded by pool.mu
	requests  uint64        // how many it has been given; guarded by pool.mu
	limit     uint64        // how many it is given before it is replaced; 0: no limit
	condemned bool          // it is draining because requests do not end; guarded by pool.mu
	spared    time.Time     // until then it is not condemned: nobody could follow it; guarded by pool.mu
	retired   bool          // another one serves in its place, or none is to; guarded by pool.mu
	cut       bool          // what was left of its requests has been cut off; guarded by pool.mu
	idle      chan struct{} // closed when it is draining and nothing is open; guarded by pool.mu
	pace      pace          // guarded by pool.mu
}

// load is how many places are taken, by requests and by threads that run on behind them. It is called with pool.mu held.
func (w *worker) load() int { return w.open + w.held }

// busierThan compares what is open. It is called with pool.mu held.
func (w *worker) busierThan(other *worker) bool {
	a, b := w.load(), other.load()
	return a > b || a == b && w.sockets > other.sockets
}

// isServing tells whether the worker gets requests.
func (w *worker) isServing() bool {
	w.pool.mu.Lock()
	defer w.pool.mu.Unlock()
	return w.state == stateReady
}

// window is what the worker's load may be. It is called with pool.mu held.
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

// launchWorker starts a worker's interpreter and tells it what to serve. The worker is over, and nothing of it left, when
// its connection and its interpreter have ended; until then, whoever has it must kill, stop or retire it.
func (p *pool) launchWorker(s *slot, launch launcher) (*worker, error) {
	interp, rw, err := launch(p.settings, s.id, s.logger)
	if err != nil {
		return nil, err
	}
	w := &worker{
		id: s.id, pool: p, slot: s, interp: interp, logger: s.logger, began: time.Now(),
		limit: p.settings.requestLimit(), ready: make(chan error, 1), over: make(chan struct{}), idle: make(chan struct{}),
		renewal: make(chan string, 1), quiet: make(chan struct{}, 1),
	}
	files, descriptors := interp.Files()
	w.conn = wire.NewConn(rw, files, w)
	p.mu.Lock()
	p.alive[w] = struct{}{}
	p.mu.Unlock()
	go w.watch()
	asked, monitorFD := interp.Monitor()
	if asked != nil {
		go w.watchRequests(monitor{asked})
	}
	if err := w.conn.Control(wire.Start, startHead(p.settings, s.id, descriptors, monitorFD)); err != nil {
		w.kill()
		return nil, err
	}
	return w, nil
}

// watch reads what the worker sends that is not for a request, and sees to it that everybody learns of its end.
func (w *worker) watch() {
	ended := make(chan error, 1)
	go func() { ended <- w.conn.Run() }()
	var err error
	select {
	case err = <-ended:
	case <-w.interp.Exited():
		// What it still sent is read; a process that it forked may hold the connection open.
		time.AfterFunc(time.Second, w.conn.Close)
		err = <-ended
	}
	w.pool.remove(w)
	w.cause = w.awaitExit(err)
	w.conn.Close()
	w.pool.forget(w)
	close(w.over)
}

// awaitExit waits until the interpreter has exited, now that the connection has ended with err, and says why it has.
func (w *worker) awaitExit(err error) error {
	broken := errors.Is(err, wire.ErrProtocol)
	switch {
	case broken:
		w.interp.Kill()
	case !w.told.Load(): // otherwise stop gives it its time
		timer := time.AfterFunc(time.Second, w.interp.Kill)
		defer timer.Stop()
	}
	<-w.interp.Exited()
	if broken {
		return err
	}
	return fmt.Errorf("the worker ended: %s", w.interp.Reason())
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

// retire takes the worker out of service: it gets no further requests, and is stopped when those that it has are through,
// or have been cut off after the drain timeout, or when the pool ends. It returns when the worker is over.
func (w *worker) retire() {
	w.pool.withdraw(w)
	w.pool.mu.Lock()
	w.retired = true
	w.pool.mu.Unlock()
	end := drainEnd(w.pool.settings.DrainTimeout)
	timer := time.NewTimer(time.Until(end))
	defer timer.Stop()
	select {
	case <-w.idle:
	case <-w.over:
	case <-timer.C:
		w.pool.cutOffWorker(w)
	case <-w.pool.ctx.Done():
	}
	if w.pool.ctx.Err() != nil {
		end = w.pool.drainEnd()
	}
	w.stop(max(0, time.Until(end)))
}

// stop ends the worker: it finishes what is open, waits as long as left for what runs behind responses, runs lifespan
// shutdown and exits, or is killed. It returns when the worker is over.
func (w *worker) stop(left time.Duration) {
	w.told.Store(true)
	w.pool.remove(w)
	limit := time.AfterFunc(left+stopTimeout, func() {
		w.logger.Warn("worker did not stop in time", zap.Duration("timeout", stopTimeout))
		w.kill()
	})
	defer limit.Stop()
	go func() {
		select {
		case <-w.quiet:
			if limit.Stop() {
				limit.Reset(stopTimeout)
			}
		case <-w.over:
		}
	}()
	// This waits for a worker that takes nothing.
	if err := w.conn.Control(wire.Stop, marshal.AppendInt(nil, left.Milliseconds())); err != nil {
		w.logger.Error("telling a worker to stop", zap.Error(err))
	}
	<-w.over
}

// kill ends the worker at once and returns when it is over.
func (w *worker) kill() {
	w.conn.Close()
	w.interp.Kill()
	<-w.over
}

// startHead is the head of START.
func startHead(s settings, id, descriptors, monitor int) []byte {
	b := marshal.AppendDict(nil)
	b = marshal.AppendString(marshal.AppendKey(b, "interface"), s.Interface)
	b = marshal.AppendString(marshal.AppendKey(b, "app"), s.App)
	b = marshal.AppendInt(marshal.AppendKey(b, "worker"), int64(id))
	b = marshal.AppendString(marshal.AppendKey(b, "runtime"), s.Runtime)
	b = marshal.AppendInt(marshal.AppendKey(b, "threads"), int64(s.Threads))
	b = marshal.AppendBool(marshal.AppendKey(b, "multithread"), s.isMultithread())
	b = marshal.AppendBool(marshal.AppendKey(b, "multiprocess"), s.isMultiprocess())
	b = marshal.AppendString(marshal.AppendKey(b, "lifespan"), s.Lifespan)
	b = marshal.AppendString(marshal.AppendKey(b, "working_dir"), s.WorkingDir)
	b = marshal.AppendInt(marshal.AppendKey(b, "descriptors"), int64(descriptors))
	b = marshal.AppendInt(marshal.AppendKey(b, "monitor"), int64(monitor))
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
	case wire.Drained:
		select {
		case w.quiet <- struct{}{}:
		default:
		}
		return nil
	case wire.Held:
		return w.hold(f.Head)
	case wire.Log:
		return w.log(f.Head)
	default:
		return fmt.Errorf("%w: type %d on stream 0", wire.ErrProtocol, f.Type)
	}
}

// hold takes a HELD frame.
func (w *worker) hold(head []byte) error {
	r := marshal.NewReader(head)
	held := r.Int()
	if err := r.End(); err != nil || held < 0 || held > w.pool.settings.Threads {
		return fmt.Errorf("%w: %d threads are held", wire.ErrProtocol, held)
	}
	w.pool.hold(w, held)
	return nil
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
