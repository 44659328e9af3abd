package wire

import "slices"

// group is how many listeners one goroutine calls, one after another: more are called by several at once.
const group = 32

// Listen says, after ACCEPT, that nobody will wait in Recv any more: f is called instead when Next has something to
// return, by the goroutine that reads or one like it, so f must not block. It is called once from here. It may still be
// called after Release, and several times at once.
func (s *Stream) Listen(f func()) {
	s.mu.Lock()
	s.listener = f
	s.mu.Unlock()
	s.conn.listening.Add(1)
	notify(s.conn.listened)
	f()
}

// Unlisten ends what Listen has begun. Release must follow.
func (s *Stream) Unlisten() { s.conn.listening.Add(-1) }

// Await has handle called when TryRecv may have something to return, so that nobody has to be woken for it, and waits.
// Whoever reads calls handle, or another goroutine beside it, but only one at a time: it must not block. Await returns
// when handle has returned false, when Recv would fail, or when done is closed; handle is not called any more then.
func (s *Stream) Await(done <-chan struct{}, handle func() bool) {
	over := false // guarded by s.attending
	s.Listen(func() {
		s.attending.Lock()
		defer s.attending.Unlock()
		if !over && !handle() {
			over = true
			notify(s.arrived)
		}
	})
	// A token says only that there may be something to look at; the one of a Reset may have been taken before.
	for waiting := true; waiting && !s.over(); {
		select {
		case <-s.arrived:
			s.attending.Lock()
			waiting = !over
			s.attending.Unlock()
		case <-done:
			waiting = false
		}
	}
	s.mu.Lock()
	s.listener = nil
	s.mu.Unlock()
	s.Unlisten()
	s.attending.Lock()
	over = true
	s.attending.Unlock()
}

// TryRecv returns what Recv would return at once if that is a part of the body of at most size bytes, not the last one,
// and the worker needs no credit for it yet, so that Consumed need not write to the worker. ok: it is; more: it is not,
// but there is something.
func (s *Stream) TryRecv(size int) (f Frame, ok, more bool) {
	if s.next == len(s.taken) {
		if more, _ := s.take(); !more {
			return Frame{}, false, false
		}
	}
	if r, _ := s.joined(); r.t != Data || r.end || r.data > size || s.consumed+r.data >= creditDue {
		return Frame{}, false, true
	}
	return s.pop(), true, false
}

// tell calls the listeners of what has been dispatched.
func (c *Conn) tell() {
	heard := c.heard
	for len(heard) > group {
		go call(slices.Clone(heard[:group]))
		heard = heard[group:]
	}
	call(heard)
	clear(c.heard)
	c.heard = c.heard[:0]
}

func call(listeners []func()) {
	for _, f := range listeners {
		f()
	}
}
