package caddysnake

import (
	"io"
	"strings"
	"testing"
	"time"
)

// TestExitWithoutPython is about one that is stuck: Caddy has waited for it as long as for any worker, and does not again.
func TestExitWithoutPython(t *testing.T) {
	embedded.python, embedded.orders = new(python), make(chan []byte, 1)
	embedded.threads = map[uint32]*thread{1: new(thread)}
	embedded.written.Add(1)
	defer func() {
		embedded.written.Done()
		embedded.python, embedded.orders, embedded.threads = nil, nil, nil
	}()
	done := make(chan struct{})
	go func() {
		runExitFunctions()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(stopTimeout):
		t.Error("it waits as if nothing were known")
	}
}

// TestOrdersThatNobodyTakes is about an interpreter that an app keeps busy for ever: Caddy must go on, and be able to exit.
func TestOrdersThatNobodyTakes(t *testing.T) {
	reader, writer := io.Pipe() // holds nothing
	embedded.python, embedded.orders = new(python), sendOrders(writer)
	defer func() {
		embedded.python, embedded.orders = nil, nil
		_ = reader.Close()
	}()
	g := new(generation)
	g.commit()
	if _, err := io.ReadFull(reader, make([]byte, 1)); err != nil { // so the rest of that order is being written
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		for range 10 * mostOrders {
			g.commit()
		}
		done <- new(thread).start(g, new(python), settings{}, new(connection))
	}()
	select {
	case err := <-done:
		if err == nil || !strings.Contains(err.Error(), "restart Caddy") {
			t.Errorf("a start: %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("an order waits for ever")
	}
}
