//go:build !windows

package caddysnake

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/mliezun/caddy-snake/internal/marshal"
	"github.com/mliezun/caddy-snake/internal/wire"
)

// eventually fails the test unless condition holds within a few seconds.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !condition(); {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// never answers a request.
func never(wire.Frame) ([]wire.Frame, error) { return nil, nil }

func TestPoolPicksTheLeastLoaded(t *testing.T) {
	p := testPool(t, settings{Interface: interfaceWSGI, Workers: 3, Threads: 2}, never)
	count := map[*worker]int{}
	for range 3 {
		w, err := p.acquire(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		count[w]++
	}
	if len(count) != 3 {
		t.Errorf("three requests went to %d of three idle workers", len(count))
	}
	for w := range count {
		p.release(w, false)
	}
}

func TestPoolQueuesInOrderWhatFindsNoRoom(t *testing.T) {
	p := testPool(t, settings{Interface: interfaceWSGI, Workers: 1, Threads: 1}, never)
	w, err := p.acquire(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	order := make(chan int, 3)
	var waiters sync.WaitGroup
	for i := range 3 {
		waiters.Go(func() {
			w, err := p.acquire(context.Background())
			if err != nil {
				t.Error(err)
				return
			}
			order <- i
			p.release(w, true) // declined: the window stays one thread wide
		})
		eventually(t, "the request waits", func() bool {
			p.mu.Lock()
			defer p.mu.Unlock()
			return p.waiting.Len() == i+1
		})
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := p.acquire(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("a request whose client left got %v", err)
	}
	p.release(w, true)
	waiters.Wait()
	for want := range 3 {
		if got := <-order; got != want {
			t.Errorf("request %d came when it was the turn of %d", got, want)
		}
	}
	if n := p.openRequests(); n != 0 {
		t.Errorf("%d places are still taken", n)
	}
}

// A thread that runs on behind its response takes a place, until the worker says that it is back.
func TestPoolKeepsRequestsFromThreadsThatAreHeld(t *testing.T) {
	p := testPool(t, settings{Interface: interfaceWSGI, Workers: 2, Threads: 1}, never)
	workers := p.readyWorkers()
	held, free := workers[0], workers[1]
	if err := held.hold(marshal.AppendInt(nil, 1)); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		w := place(t, p)
		if w != free {
			t.Fatal("a request went to the worker whose thread is held")
		}
		p.release(w, true)
	}
	place(t, p)
	waits := placeLater(t, p)
	if err := held.hold(marshal.AppendInt(nil, 0)); err != nil {
		t.Fatal(err)
	}
	if w := <-waits; w != held {
		t.Error("the request did not go to the worker whose thread is back")
	}
	for _, head := range [][]byte{nil, marshal.AppendInt(nil, -1), marshal.AppendInt(nil, 2), marshal.AppendString(nil, "1")} {
		if err := held.hold(head); !errors.Is(err, wire.ErrProtocol) {
			t.Errorf("HELD %q: got %v, want ErrProtocol", head, err)
		}
	}
}

func TestPoolRefusesWhenClosed(t *testing.T) {
	p, err := newPool(context.Background(), settings{Interface: interfaceASGI, Workers: 1}, launchFake(never), nil, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	p.close()
	if _, err := p.acquire(context.Background()); !errors.Is(err, errPoolClosed) {
		t.Errorf("got %v, want errPoolClosed", err)
	}
}

func TestPoolReplacesAWorkerThatDies(t *testing.T) {
	p := testPool(t, settings{Interface: interfaceASGI, Workers: 2}, func(f wire.Frame) ([]wire.Frame, error) {
		return nil, errDie
	})
	w, err := p.acquire(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	frame := wire.AppendHeader(nil)
	if err := wire.PutHeader(frame, wire.Request, true, 0); err != nil {
		t.Fatal(err)
	}
	stream, err := w.conn.Open(frame, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(context.Background()); !errors.Is(err, wire.ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
	stream.Release()
	eventually(t, "another worker serves in its place", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, other := range p.workers {
			if other == w {
				return false
			}
		}
		return len(p.workers) == 2 && p.open == 0
	})
}

func TestPoolStartFailures(t *testing.T) {
	failed := marshal.AppendString(marshal.AppendString(marshal.AppendTuple(nil, 2), "no such module"), "")
	tests := map[string]struct {
		launch launcher
		want   string
	}{
		"the app's own reason": {launchStarting(func(f wire.Frame) ([]wire.Frame, error) {
			return []wire.Frame{{Type: wire.Failed, Head: failed}}, nil
		}), `python app "main:app": no such module`},
		"death before it is ready": {launchStarting(func(wire.Frame) ([]wire.Frame, error) {
			return nil, errDie
		}), "the worker ended before it was ready: the fake worker dies"},
		"never ready": {launchStarting(never), "did not start within 50ms: 0 of 2 workers are ready"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := settings{Interface: interfaceASGI, App: "main:app", Workers: 2, StartTimeout: 50 * time.Millisecond}
			_, err := newPool(context.Background(), s, test.launch, nil, zap.NewNop())
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestPaceWidensTheWindowOfAFastApp(t *testing.T) {
	var p pace
	if p.ahead() != 0 {
		t.Errorf("a worker that nobody has watched gets %d requests ahead", p.ahead())
	}
	start := time.Now()
	p.since, p.count = start.Add(-pacePeriod), 200 // 200 in 2 ms
	p.finished(false, false)
	if p.ahead() != maxAhead {
		t.Errorf("a worker that finishes 100 requests in a millisecond gets %d ahead, want %d", p.ahead(), maxAhead)
	}
	p.finished(false, true)
	if p.ahead() != 0 {
		t.Errorf("a worker that declined gets %d requests ahead", p.ahead())
	}
	p.since, p.count = start.Add(-time.Second), 10
	p.finished(false, false)
	if p.ahead() != 0 {
		t.Errorf("a worker that takes 100 ms for each request gets %d ahead", p.ahead())
	}
}

func TestWindowIsTheThreadsAndTheWorkAhead(t *testing.T) {
	p := &pool{settings: settings{Interface: interfaceWSGI, Runtime: runtimeSync, Threads: 4}}
	w := &worker{pool: p, pace: pace{perSec: 5000}} // 5 in a millisecond
	if got := w.window(); got != 4+25 {
		t.Errorf("it may hold %d requests, want its 4 threads and 25 more", got)
	}
}

func TestPoolRefusesWhoLeavesAtThatMomentOnce(t *testing.T) {
	p := testPool(t, settings{Interface: interfaceASGI, Workers: 1}, never)
	p.mu.Lock()
	defer p.mu.Unlock()
	leaves := p.waiting.PushBack(&waiter{place: make(chan *worker, 1)})
	p.waiting.PushBack(&waiter{place: make(chan *worker, 1)})
	p.refuse(errNotStarting)
	p.waiting.Remove(leaves)
	if n := p.waiting.Len(); n != 0 {
		t.Errorf("%d requests wait in an empty queue", n)
	}
}

func TestPoolIsDrainedWhenTheLastWhoWaitsLeaves(t *testing.T) {
	p := testPool(t, settings{Interface: interfaceASGI, Workers: 1, limits: limits{QueueSize: 10}}, never)
	w := only(t, p)
	p.withdraw(w)
	ctx, leave := context.WithCancel(context.Background())
	left := make(chan error)
	go func() {
		_, err := p.acquire(ctx)
		left <- err
	}()
	eventually(t, "the request waits", func() bool { return p.isBusy() })
	p.expectNoMore()
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	select {
	case <-p.drained:
	case <-time.After(10 * time.Second):
		t.Error("nobody is left, and the pool is not drained")
	}
}

func TestPoolEndsAlthoughAWorkerTakesNothing(t *testing.T) {
	stuck := make(chan struct{})
	defer close(stuck)
	p := testPool(t, settings{Interface: interfaceASGI, Workers: 1, DrainTimeout: time.Millisecond}, func(f wire.Frame) ([]wire.Frame, error) {
		if f.Type == wire.Request {
			<-stuck
		}
		return nil, nil
	})
	// Of small messages a socket holds about 1,400. There is room for these, and not for what ends each of them.
	const requests = 1000
	request := wire.AppendHeader(nil)
	if err := wire.PutHeader(request, wire.Request, true, 0); err != nil {
		t.Fatal(err)
	}
	var streams []*wire.Stream
	for range requests {
		stream, err := place(t, p).conn.Open(request, nil)
		if err != nil {
			t.Fatal(err)
		}
		streams = append(streams, stream)
	}
	go p.close()
	ended := make(chan error)
	for _, stream := range streams {
		go func() {
			_, err := stream.Recv(context.Background())
			ended <- err
		}()
	}
	deadline := time.After(30 * time.Second)
	for range requests {
		select {
		case err := <-ended:
			if !errors.Is(err, wire.ErrReset) && !errors.Is(err, wire.ErrClosed) {
				t.Fatal(err)
			}
		case <-deadline:
			t.Fatal("requests wait for a worker that takes nothing")
		}
	}
}
