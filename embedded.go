package caddysnake

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/mliezun/caddy-snake/internal/marshal"
	"github.com/mliezun/caddy-snake/internal/wire"
)

// embedded is the Python interpreter inside Caddy. There is at most one, and it lives until Caddy exits: CPython cannot be
// unloaded. Caddy gives it orders through a pipe; python/caddysnake/thread.py does them, one after another.
var embedded struct {
	mu      sync.Mutex         // guards the fields below
	python  *python            // nil: none has been started
	app     string             // the one it was started for
	failed  error              // why it cannot be used any more
	orders  chan []byte        // those that are still to be written
	threads map[uint32]*thread // those that have not ended, by number
	number  uint32             // of the last one
	left    chan struct{}      // closed when the exit functions have run

	output  output         // what is written by no worker
	written sync.WaitGroup // done when that has ended
}

// interpreterFor returns what s runs on: the interpreter inside Caddy, which is started if there is none.
func interpreterFor(s settings) (*python, error) {
	wanted, err := probe(s.Python)
	if err != nil {
		return nil, err
	}
	e := &embedded
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.failed != nil:
		return nil, e.failed
	case e.python == nil:
		if err := startInterpreter(wanted, s); err != nil {
			return nil, err
		}
	case !sameFile(e.python.Library, wanted.Library):
		return nil, fmt.Errorf("%s (Python %s) cannot run in this Caddy, in which Python %s runs since it was started for %q: "+
			"restart Caddy if all its apps are to use the new one%s",
			s.Python, wanted.Version, e.python.Version, e.app, advise(", or set workers_runtime process", ""))
	}
	return wanted, nil
}

// startInterpreter is called with embedded.mu held, until it has succeeded once.
func startInterpreter(p *python, s settings) error {
	dir, err := unpackedPackage()
	if err != nil {
		return fmt.Errorf("unpacking the worker package: %w", err)
	}
	readers, writers, err := newPipes(4)
	if err != nil {
		return err
	}
	orders, reports, stdout, stderr := writers[0], readers[1], readers[2], readers[3]
	fds, err := handOver(readers[0], writers[1], writers[2], writers[3])
	if err != nil {
		closeFiles(orders, reports, stdout, stderr)
		return err
	}
	// If it ends in spite of all, the end of the reports says so. On Windows it takes Caddy's executable for its own, and
	// what it is given are handles.
	source := fmt.Sprintf(`
import os, sys
fds = (%d, %d, %d, %d)
if os.name == "nt":
    import msvcrt
    sys.executable = %s
    fds = [msvcrt.open_osfhandle(handle, os.O_NOINHERIT) for handle in fds[:2]] + [*fds[2:]]
try:
    sys.path.insert(0, %s)
    from caddysnake import thread
    del sys.path[0]
    thread.main(*fds)
finally:
    os.close(fds[0])
    os.close(fds[1])
`, fds[0], fds[1], fds[2], fds[3], strconv.QuoteToASCII(s.Python), strconv.QuoteToASCII(filepath.Dir(dir)))
	if err := startPython(p.Library, s.Python, p.UTF8Mode, source); err != nil {
		closeFiles(orders, reports, stdout, stderr)
		closeHandedOver(fds...)
		return err
	}
	e := &embedded
	e.python, e.app, e.orders, e.threads, e.left = p, s.App, sendOrders(orders), map[uint32]*thread{}, make(chan struct{})
	logger := caddy.Log().Named("python").With(zap.Int("pid", os.Getpid()))
	e.written.Go(func() { e.output.log(stdout, logger, "stdout") })
	e.written.Go(func() { e.output.log(stderr, logger, "stderr") })
	go readReports(reports)
	return nil
}

// readReports marks the threads that have ended; number 0 is the end of all.
func readReports(reports io.Reader) {
	e := &embedded
	for {
		var report [4]byte
		_, err := io.ReadFull(reports, report[:])
		e.mu.Lock()
		number := binary.LittleEndian.Uint32(report[:])
		switch {
		case err != nil:
			e.failed = errors.New("the interpreter inside Caddy has ended, its reason is on Caddy's standard error")
			for _, t := range e.threads {
				close(t.ended)
			}
			clear(e.threads)
		case number == 0:
			close(e.left)
		case e.threads[number] != nil:
			close(e.threads[number].ended)
			delete(e.threads, number)
		}
		e.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// mostOrders is how many orders may wait until Python takes them.
const mostOrders = 100

// sendOrders writes what comes from the channel that it returns. Whoever gives orders does not wait: code that never lets go
// of the interpreter would keep Caddy from exiting.
func sendOrders(pipe io.Writer) chan []byte {
	orders := make(chan []byte, mostOrders)
	go func() {
		for order := range orders {
			if _, err := pipe.Write(order); err != nil {
				return // the interpreter has ended, and readReports says so
			}
		}
	}()
	return orders
}

// order sends an order, a dict of which "order" names the kind. It is called with embedded.mu held.
func order(dict []byte) error {
	if embedded.failed != nil {
		return embedded.failed
	}
	select {
	case embedded.orders <- append(binary.LittleEndian.AppendUint32(nil, uint32(len(dict))), dict...):
		return nil
	default:
		return errors.New("the interpreter inside Caddy takes no orders, some code in it does not let go of it: restart Caddy")
	}
}

// commit says that all apps of the generation have started, and that Caddy goes on with them.
func (g *generation) commit() { g.end("commit") }

// rollBack says that Caddy does not go on with the generation, and that its workers have ended.
func (g *generation) rollBack() { g.end("roll_back") }

func (g *generation) end(kind string) {
	embedded.mu.Lock()
	defer embedded.mu.Unlock()
	if embedded.python == nil {
		return
	}
	b := marshal.AppendDict(nil)
	b = marshal.AppendString(marshal.AppendKey(b, "order"), kind)
	b = marshal.AppendInt(marshal.AppendKey(b, "generation"), int64(g.number))
	_ = order(marshal.AppendDictEnd(b)) // it fails only if no interpreter is there, or none that does anything
}

// runExitFunctions does what Python does at its end, when Caddy exits and all workers have ended: process pools end, what
// atexit has is run. What is then written is logged.
func runExitFunctions() {
	embedded.mu.Lock()
	if embedded.python == nil {
		embedded.mu.Unlock()
		return
	}
	written, timeout := make(chan struct{}), stopTimeout
	if len(embedded.threads) > 0 { // what has kept these from ending may keep everything else from running
		timeout = killGrace
	}
	b := marshal.AppendString(marshal.AppendKey(marshal.AppendDict(nil), "order"), "exit")
	err := order(marshal.AppendDictEnd(b))
	embedded.mu.Unlock()
	if err != nil {
		return
	}
	select {
	case <-embedded.left:
	case <-time.After(timeout):
		caddy.Log().Named("python").Warn("exit functions did not end in time", zap.Duration("timeout", timeout))
		return
	}
	go func() {
		embedded.written.Wait()
		close(written)
	}()
	select {
	case <-written:
	case <-time.After(outputGrace): // a process that an app has started holds it open
	}
}

// thread is a worker's interpreter that is a thread inside Caddy.
type thread struct {
	logger *zap.Logger
	files  wire.FileSource // the worker's Conn closes it; nil: there is none
	asked  wire.Socket     // Caddy's end of its monitor's connection, which the worker closes; nil: there is none
	output output
	ended  chan struct{} // closed when it has ended
	exited chan struct{} // closed when it has ended and its output is read, or when it is left running

	killing   sync.Once
	abandoned chan struct{} // closed when nobody waits for it any more
}

// killGrace is how long a thread has to end by itself: nothing else can end it.
const killGrace = 3 * time.Second

// connection is what Caddy and a worker that is a thread talk over. The worker's ends, as Python calls them, are Python's
// from the moment that it is ordered to start.
type connection struct {
	socket wire.Socket
	files  wire.FileSource // nil: open files cannot be sent
	asked  wire.Socket     // its monitor's; nil: there is none

	theirSocket, theirFiles, theirMonitor int // 0: there is none
}

// close closes all ends.
func (c *connection) close() {
	_ = c.socket.Close()
	closeHandedOver(c.theirSocket)
	if c.files != nil {
		_ = c.files.Close()
		closeHandedOver(c.theirFiles)
	}
	if c.asked != nil {
		_ = c.asked.Close()
		closeHandedOver(c.theirMonitor)
	}
}

// launch starts a worker on a thread.
func (g *generation) launch(python *python) launcher {
	return func(s settings, _ int, logger *zap.Logger) (interpreter, wire.Socket, error) {
		c, err := connect()
		if err != nil {
			return nil, nil, err
		}
		if s.RequestTimeout > 0 {
			c.asked, c.theirMonitor, err = connectMonitor()
		}
		t := &thread{
			logger: logger.With(zap.Int("pid", os.Getpid())), files: c.files, asked: c.asked,
			ended: make(chan struct{}), exited: make(chan struct{}), abandoned: make(chan struct{}),
		}
		if err == nil {
			err = t.start(g, python, s, c)
		}
		if err != nil {
			c.close()
			return nil, nil, err
		}
		return t, c.socket, nil
	}
}

// start orders the thread.
func (t *thread) start(g *generation, python *python, s settings, c *connection) error {
	readers, writers, err := newPipes(2)
	if err != nil {
		return err
	}
	output, err := handOver(writers...)
	if err != nil {
		closeFiles(readers...)
		return err
	}

	embedded.mu.Lock()
	embedded.number++
	number := embedded.number
	b := marshal.AppendDict(nil)
	b = marshal.AppendString(marshal.AppendKey(b, "order"), "start")
	b = marshal.AppendInt(marshal.AppendKey(b, "number"), int64(number))
	b = marshal.AppendString(marshal.AppendKey(b, "app"), s.App)
	b = marshal.AppendInt(marshal.AppendKey(b, "generation"), int64(g.number))
	b = marshal.AppendBytes(marshal.AppendKey(b, "working_dir"), s.WorkingDir)
	b = appendPaths(marshal.AppendKey(b, "roots"), g.roots)
	b = appendPaths(marshal.AppendKey(b, "packages"), python.Packages)
	b = appendPaths(marshal.AppendKey(b, "env"), s.Env)
	b = marshal.AppendInt(marshal.AppendKey(b, "socket"), int64(c.theirSocket))
	b = marshal.AppendInt(marshal.AppendKey(b, "descriptors"), int64(c.theirFiles))
	b = marshal.AppendInt(marshal.AppendKey(b, "monitor"), int64(c.theirMonitor))
	b = marshal.AppendInt(marshal.AppendKey(b, "stdout"), int64(output[0]))
	b = marshal.AppendInt(marshal.AppendKey(b, "stderr"), int64(output[1]))
	if err = order(marshal.AppendDictEnd(b)); err == nil {
		embedded.threads[number] = t
	}
	embedded.mu.Unlock()
	if err != nil {
		closeHandedOver(output...)
		closeFiles(readers...)
		return fmt.Errorf("starting a thread: %w", err)
	}
	go t.wait(readers[0], readers[1])
	return nil
}

// newPipes makes pipes for Python.
func newPipes(count int) (readers, writers []*os.File, err error) {
	for range count {
		reader, writer, err := os.Pipe()
		if err != nil {
			closeFiles(append(readers, writers...)...)
			return nil, nil, fmt.Errorf("making a pipe for Python: %w", err)
		}
		readers, writers = append(readers, reader), append(writers, writer)
	}
	return readers, writers, nil
}

// handOver gives Python files of its own: descriptors that no finalizer of ours closes. It closes the files.
func handOver(files ...*os.File) (fds []int, err error) {
	defer closeFiles(files...)
	for _, file := range files {
		fd, err := duplicate(file)
		if err != nil {
			closeHandedOver(fds...)
			return nil, err
		}
		fds = append(fds, fd)
	}
	return fds, nil
}

func closeFiles(files ...*os.File) {
	for _, file := range files {
		_ = file.Close()
	}
}

// appendPaths appends a list of strings in the encoding of file names, which is whatever bytes they are.
func appendPaths(b []byte, paths []string) []byte {
	b = marshal.AppendList(b, len(paths))
	for _, path := range paths {
		b = marshal.AppendBytes(b, path)
	}
	return b
}

// wait reads the thread's output and waits for its end.
func (t *thread) wait(stdout, stderr *os.File) {
	over := make(chan struct{})
	go func() {
		var readers sync.WaitGroup
		readers.Go(func() { t.output.log(stdout, t.logger, "stdout") })
		readers.Go(func() { t.output.log(stderr, t.logger, "stderr") })
		<-t.ended
		deadline := time.Now().Add(outputGrace)
		_ = stdout.SetReadDeadline(deadline)
		_ = stderr.SetReadDeadline(deadline)
		readers.Wait()
		_ = stdout.Close()
		_ = stderr.Close()
		close(over)
	}()
	select {
	case <-over:
	case <-t.abandoned:
	}
	close(t.exited)
}

// Exited implements interpreter.
func (t *thread) Exited() <-chan struct{} { return t.exited }

// Reason implements interpreter.
func (t *thread) Reason() string { return t.output.explain("its thread ended") }

// Pid implements interpreter.
func (t *thread) Pid() int { return os.Getpid() }

// Stopped implements interpreter: Caddy would be stopped with it.
func (t *thread) Stopped() bool { return false }

// Files implements interpreter. The worker's own end was in its order.
func (t *thread) Files() (wire.FileSource, int) { return t.files, 0 }

// Monitor implements interpreter. The worker's own end was in its order.
func (t *thread) Monitor() (wire.Socket, int) { return t.asked, 0 }

// Kill implements interpreter. Nothing can end a thread from outside; one that does not end now that its connection has
// gone is left running.
func (t *thread) Kill() {
	t.killing.Do(func() {
		go func() {
			select {
			case <-t.exited:
			case <-time.After(killGrace):
				t.logger.Warn("worker thread left running, it did not end in time", zap.Duration("timeout", killGrace))
				close(t.abandoned)
			}
		}()
	})
}

func sameFile(a, b string) bool {
	infoA, errA := os.Stat(a)
	infoB, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(infoA, infoB)
}

// Interface guard.
var _ interpreter = (*thread)(nil)
