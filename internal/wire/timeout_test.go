package wire

import (
	"context"
	"errors"
	"testing"
	"time"
)

var errLate = errors.New("late")

// recvLate fails the test unless Recv fails with errLate soon.
func recvLate(t *testing.T, s *Stream) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if f, err := s.Recv(ctx); !errors.Is(err, errLate) {
		t.Fatalf("got %+v, %v, want errLate", f, err)
	}
}

func TestOldStreamsAreOverdueUntilTheyBegin(t *testing.T) {
	c, p, _, _ := connect(t)
	begun, id := open(t, c, p)
	_, waitingID := openNoted(t, c, p, "note")
	mark := c.Newest()
	open(t, c, p) // younger
	p.send(Frame{Stream: id, Type: Response, Head: []byte("head")})
	if _, err := begun.Recv(context.Background()); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	if got := c.Overdue(mark, now); len(got) != 1 || got[0] != (Overdue{waitingID, "note"}) {
		t.Fatalf("overdue are %+v", got)
	}
	c.Extend(waitingID)
	if got := c.Overdue(mark, now); len(got) != 0 {
		t.Errorf("after Extend, overdue are %+v", got)
	}
	if got := c.Overdue(c.Newest(), time.Now()); len(got) != 2 {
		t.Errorf("later, overdue are %+v", got)
	}
	if expired, _ := c.Expire(id, errLate); expired {
		t.Error("a response that has begun was expired")
	}
}

func TestExpiredStreamsFailWhoeverReads(t *testing.T) {
	c, p, _, _ := connect(t)
	first, firstID := open(t, c, p)
	second, secondID := open(t, c, p)
	// One of the two reads for both.
	failed := make(chan error, 2)
	for _, s := range []*Stream{first, second} {
		go func() {
			_, err := s.Recv(context.Background())
			failed <- err
		}()
	}
	for _, id := range []uint32{firstID, secondID} {
		if expired, waited := c.Expire(id, errLate); !expired || !waited {
			t.Errorf("stream %d: expired %v, waited %v", id, expired, waited)
		}
		select {
		case err := <-failed:
			if !errors.Is(err, errLate) {
				t.Errorf("got %v, want errLate", err)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("nobody was woken")
		}
	}
	if count, since, others := c.Expired(); count != 2 || since.IsZero() || others {
		t.Errorf("%d expired, since %v, others %v", count, since, others)
	}
	// What comes all the same, and the end of the worker, change nothing.
	p.send(Frame{Stream: firstID, Type: Reset})
	recvLate(t, first)
	c.Close()
	recvLate(t, second)
}

func TestStreamThatWasGivenUpIsOverdueToo(t *testing.T) {
	c, p, _, _ := connect(t)
	s, id := open(t, c, p)
	s.Reset()
	if got := c.Overdue(c.Newest(), time.Now()); len(got) != 1 {
		t.Fatalf("overdue are %+v", got)
	}
	if expired, waited := c.Expire(id, errLate); !expired || waited {
		t.Errorf("expired %v, waited %v", expired, waited)
	}
	if got := c.Overdue(c.Newest(), time.Now()); len(got) != 0 {
		t.Errorf("it is overdue again: %+v", got)
	}
	s.Release()
}

func TestNumbersOfOverdueStreamsWrapAround(t *testing.T) {
	c, p, _, _ := connect(t)
	c.last = 1<<32 - 2
	open(t, c, p)
	mark := c.Newest()
	open(t, c, p)
	if got := c.Overdue(mark, time.Now()); len(got) != 1 || got[0].Stream != 1<<32-1 {
		t.Errorf("overdue are %+v", got)
	}
	if got := c.Overdue(c.Newest(), time.Now()); len(got) != 2 {
		t.Errorf("later, overdue are %+v", got)
	}
}
