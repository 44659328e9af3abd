//go:build !windows

package caddysnake

import (
	"context"
	"errors"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/mliezun/caddy-snake/internal/wire"
)

// count is how many slots of p have not been retired.
func count(p *pool) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.inUseSlots())
}

func TestPoolGrowsWhileRequestsWaitAndShrinksWhenItIsIdle(t *testing.T) {
	for name, s := range map[string]settings{
		"threads": {Interface: interfaceWSGI, Workers: 1, Threads: 1},
		"loops":   {Interface: interfaceASGI, Workers: 1},
	} {
		t.Run(name, func(t *testing.T) {
			s.scaling = scaling{MaxWorkers: 3, IdleTimeout: 300 * time.Millisecond}
			p := testPool(t, s, never)
			places := make(chan *worker)
			for range 10 * s.target() {
				go func() {
					w, err := p.acquire(context.Background())
					if err != nil {
						t.Error(err)
					}
					places <- w
				}()
			}
			eventually(t, "all workers", func() bool { return count(p) == 3 })
			for range 10 * s.target() {
				p.release(<-places, true)
			}
			eventually(t, "one worker", func() bool { return count(p) == 1 })
		})
	}
}

func TestPoolWithoutWorkersStartsOneForTheFirstRequest(t *testing.T) {
	s := settings{Interface: interfaceASGI, App: "main:app", scaling: scaling{MaxWorkers: 2, IdleTimeout: 100 * time.Millisecond}}
	s.QueueSize = 1
	p, err := newPool(context.Background(), s, launchFake(never), nil, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	for range 2 {
		if n := count(p); n != 0 {
			t.Fatalf("%d workers for no request", n)
		}
		w, err := p.acquire(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		p.mu.Lock()
		w.sockets, p.sockets = 1, 1 // an open WebSocket keeps it
		p.mu.Unlock()
		p.release(w, false)
		for range 2 { // the second look finds no load
			if slots := p.shrink(new(load), time.Now()); len(slots) != 0 {
				t.Fatal("a worker with an open WebSocket is to go")
			}
		}
		p.releaseSocket(w)
		eventually(t, "no worker", func() bool { return count(p) == 0 })
	}
}

func TestPoolRefusesAtOnceWhileNoWorkerStarts(t *testing.T) {
	broken := errors.New("broken")
	fail := func(settings, int, *zap.Logger) (interpreter, wire.Socket, error) { return nil, nil, broken }
	s := settings{Interface: interfaceASGI, App: "main:app", scaling: scaling{MaxWorkers: 2, IdleTimeout: time.Minute}}
	s.QueueSize = 10
	p, err := newPool(context.Background(), s, fail, nil, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	for range 3 { // the first one has waited
		if _, err := p.acquire(context.Background()); !errors.Is(err, errNotStarting) {
			t.Fatalf("got %v, want errNotStarting", err)
		}
	}
}

func TestDefaultWorkersAreAtLeastOne(t *testing.T) {
	if n := defaultWorkers(); n < 1 {
		t.Errorf("%d workers", n)
	}
}
