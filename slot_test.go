//go:build !windows

package caddysnake

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/mliezun/caddy-snake/internal/marshal"
	"github.com/mliezun/caddy-snake/internal/wire"
)

// only returns the one worker of the pool that gets requests, once there is exactly one.
func only(t *testing.T, p *pool) *worker {
	t.Helper()
	var w *worker
	eventually(t, "one worker is ready", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		if len(p.workers) == 1 {
			w = p.workers[0]
		}
		return len(p.workers) == 1
	})
	return w
}

// place takes a place on the pool's only worker.
func place(t *testing.T, p *pool) *worker {
	t.Helper()
	w, err := p.acquire(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// placeLater returns what a request gets that waits in the queue, as the only one. nil: it has failed.
func placeLater(t *testing.T, p *pool) <-chan *worker {
	t.Helper()
	placed := make(chan *worker)
	go func() {
		w, err := p.acquire(context.Background())
		if err != nil {
			t.Error(err)
		}
		placed <- w
	}()
	eventually(t, "the request waits", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.waiting.Len() == 1
	})
	return placed
}

func state(w *worker) workerState {
	w.pool.mu.Lock()
	defer w.pool.mu.Unlock()
	return w.state
}

// poolThatStartsOnce has one worker, which no other one can follow, and counts the attempts.
func poolThatStartsOnce(t *testing.T) (*pool, *atomic.Int32) {
	t.Helper()
	failed := marshal.AppendString(marshal.AppendString(marshal.AppendTuple(nil, 2), "no such module"), "")
	starts := new(atomic.Int32)
	launch := launchStarting(func(f wire.Frame) ([]wire.Frame, error) {
		if f.Type == wire.Start && starts.Add(1) > 1 {
			return []wire.Frame{{Type: wire.Failed, Head: failed}}, nil
		}
		return []wire.Frame{{Type: wire.Ready, Head: marshal.AppendDictEnd(marshal.AppendDict(nil))}}, nil
	})
	p, err := newPool(context.Background(), settings{Interface: interfaceASGI, App: "main:app", Workers: 1}, launch, nil, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	return p, starts
}

// poolThatDrainsItsFirst has one place: its first worker drains with a request, the second one serves.
func poolThatDrainsItsFirst(t *testing.T) (p *pool, first, second *worker) {
	t.Helper()
	p = testPool(t, settings{Interface: interfaceASGI, Workers: 1}, never)
	first = place(t, p)
	first.renew("test")
	eventually(t, "the first worker drains", func() bool { return state(first) == stateDraining })
	return p, first, only(t, p)
}

// eventuallyReplaced waits until another worker than w, and none but that, serves its pool.
func eventuallyReplaced(t *testing.T, w *worker) {
	t.Helper()
	eventually(t, "another worker serves", func() bool {
		w.pool.mu.Lock()
		defer w.pool.mu.Unlock()
		return len(w.pool.workers) == 1 && w.pool.workers[0] != w
	})
}

func TestSlotReplacesItsWorkerWhenAnotherIsReady(t *testing.T) {
	p := testPool(t, settings{Interface: interfaceASGI}, never)
	old := place(t, p)
	old.renew("test")
	eventually(t, "the old worker drains", func() bool { return state(old) == stateDraining })
	next := place(t, p)
	if next == old {
		t.Error("the worker that drains got a request")
	}
	if next.id != old.id {
		t.Errorf("the new worker is number %d, in place of number %d", next.id, old.id)
	}
	select {
	case <-old.over:
		t.Error("the old worker ended before its request did")
	default:
	}
	p.release(old, false)
	<-old.over
	p.release(next, false)
}

func TestSlotKeepsItsWorkerWhenNoOtherStarts(t *testing.T) {
	p, starts := poolThatStartsOnce(t)
	w := only(t, p)
	w.renew("test")
	eventually(t, "the attempt is over", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return starts.Load() == 2 && len(p.alive) == 1
	})
	if got := only(t, p); got != w || state(w) != stateReady {
		t.Errorf("worker %p serves in state %s, want %p", got, state(w), w)
	}
}

func TestSlotGivesACondemnedWorkerItsRequestsBackWhenNoOtherStarts(t *testing.T) {
	p, starts := poolThatStartsOnce(t)
	w := only(t, p)
	w.condemn("its event loop is blocked")
	eventually(t, "another one was tried", func() bool { return starts.Load() == 2 })
	if got := only(t, p); got != w {
		t.Fatalf("worker %p serves, want the one that was condemned, %p", got, w)
	}
	w.condemn("its event loop is blocked")
	if state(w) != stateReady || w.isDoomed() {
		t.Error("it is condemned again before another one is tried again")
	}
}

func TestSlotReplacesAWorkerThatIsCondemnedWhileItWaitsForItsTurn(t *testing.T) {
	p, first, second := poolThatDrainsItsFirst(t)
	second.renew("test")
	eventually(t, "its supervisor waits for the first one", func() bool { return len(second.renewal) == 0 })
	second.condemn("its event loop is blocked")
	eventuallyReplaced(t, second)
	p.release(first, false)
}

func TestSlotReplacesACondemnedWorkerWhileAnOlderOneDrains(t *testing.T) {
	p, first, second := poolThatDrainsItsFirst(t)
	second.condemn("its event loop is blocked")
	eventuallyReplaced(t, second)
	if state(first) != stateDraining {
		t.Error("the first worker was not waited for")
	}
	p.release(first, false)
}

func TestSlotReplacesACondemnedWorkerWhileThePoolDrainsForThoseWhoWait(t *testing.T) {
	p := testPool(t, settings{Interface: interfaceWSGI, Workers: 1, Threads: 1, limits: limits{QueueSize: 1, QueueTimeout: 10 * time.Second}}, never)
	hanging := place(t, p)
	waiting := placeLater(t, p)
	p.drain()
	hanging.condemn("a request did not end")
	if next := <-waiting; next == hanging {
		t.Error("the worker that was condemned got a request")
	} else if next != nil {
		p.release(next, false)
	}
	p.release(hanging, false)
}

func TestSlotReplacesAWorkerOnceForOneReason(t *testing.T) {
	var starts atomic.Int32
	gate := make(chan struct{})
	launch := launchStarting(func(f wire.Frame) ([]wire.Frame, error) {
		if f.Type == wire.Start && starts.Add(1) > 1 {
			<-gate
		}
		return []wire.Frame{{Type: wire.Ready, Head: marshal.AppendDictEnd(marshal.AppendDict(nil))}}, nil
	})
	p, err := newPool(context.Background(), settings{Interface: interfaceASGI, App: "main:app", Workers: 1}, launch, nil, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	old := only(t, p)
	old.renew(byMemory)
	eventually(t, "another one starts", func() bool { return starts.Load() == 2 })
	old.renew(byMemory) // it still holds too much
	close(gate)
	<-old.over
	next := only(t, p)
	next.slot.retire()
	<-next.over // its supervisor has looked at all that was asked of it
	if got := starts.Load(); got != 2 {
		t.Errorf("%d workers were started, want 2", got)
	}
}

func TestSlotThatIsRetiredEndsItsWorker(t *testing.T) {
	p := testPool(t, settings{Interface: interfaceASGI, Workers: 2}, never)
	first := place(t, p)
	first.slot.retire()
	eventually(t, "the first worker drains", func() bool { return state(first) == stateDraining })
	for range 4 {
		w := place(t, p)
		if w == first {
			t.Error("the worker that drains got a request")
		}
		p.release(w, false)
	}
	p.release(first, false)
	<-first.over
	eventually(t, "the slot has ended", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.slots) == 1 && len(p.workers) == 1
	})
	if s := p.addSlot(nil); s.id != first.id {
		t.Errorf("the next slot is number %d, want the free number %d", s.id, first.id)
	}
	eventually(t, "the new slot has a worker", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.workers) == 2
	})
}

func TestSlotCutsOffWhatIsLeftAtTheEndOfTheDrainTimeout(t *testing.T) {
	arrived := make(chan struct{}, 1) // before that it would go to the next worker
	silent := func(f wire.Frame) ([]wire.Frame, error) {
		if f.Type == wire.Request {
			arrived <- struct{}{}
		}
		return nil, nil
	}
	p := testPool(t, settings{Interface: interfaceASGI, Workers: 1, DrainTimeout: 50 * time.Millisecond}, silent)
	server := testServer(t, p)
	status := make(chan int)
	go func() {
		response, err := http.Get(server.URL)
		if err != nil {
			t.Error(err)
			close(status)
			return
		}
		_ = response.Body.Close()
		status <- response.StatusCode
	}()
	w := only(t, p)
	<-arrived
	w.renew("test")
	if got := <-status; got != http.StatusServiceUnavailable {
		t.Errorf("a request that was cut off got %d, want 503", got)
	}
	<-w.over
}

func TestSlotThatRetiresWhileItsWorkerStarts(t *testing.T) {
	p, err := newPool(context.Background(), settings{Interface: interfaceASGI, App: "main:app", Workers: 0}, launchStarting(never), nil, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	first := make(chan error, 1)
	s := p.addSlot(first)
	eventually(t, "the worker starts", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.alive) == 1
	})
	s.retire()
	if err := <-first; !errors.Is(err, errInterrupted) {
		t.Errorf("got %v, want errInterrupted", err)
	}
	eventually(t, "nothing is left", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.alive) == 0 && len(p.slots) == 0
	})
}

// goneWorker says that it has exited when its test does.
type goneWorker struct {
	interpreter
	exited chan struct{}
}

func (w *goneWorker) Exited() <-chan struct{} { return w.exited }

// A worker that has broken the protocol exits by itself when Caddy closes the connection, and that may be noticed first.
func TestWorkerThatHasExitedIsSaidToHaveBrokenTheProtocol(t *testing.T) {
	exited := make(chan struct{})
	launch, first := launchFake(answer(wire.Frame{Type: 99})), true
	p, err := newPool(context.Background(), settings{App: "main:app", Workers: 1, Threads: 1},
		func(s settings, id int, logger *zap.Logger) (interpreter, wire.Socket, error) {
			interp, socket, err := launch(s, id, logger)
			if first {
				interp, first = &goneWorker{interp, exited}, false
			}
			return interp, socket, err
		}, nil, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	w := only(t, p)
	close(exited)
	testHandler(t, p).ServeHTTP(httptest.NewRecorder(), newTestRequest("GET", "/", nil))
	<-w.over
	if !errors.Is(w.cause, wire.ErrProtocol) {
		t.Errorf("the worker has ended because of %q", w.cause)
	}
}
