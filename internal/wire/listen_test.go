package wire

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"
	"time"
)

// await has s pass what comes to handle, on a goroutine, and returns what is closed when that is over.
func await(s *Stream, done <-chan struct{}, handle func() bool) <-chan struct{} {
	over := make(chan struct{})
	go func() {
		defer close(over)
		s.Await(done, handle)
	}()
	return over
}

func waitFor(t *testing.T, c <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(10 * time.Second):
		t.Fatalf("%s does not come", what)
	}
}

// respond opens a stream whose response has begun, and returns it with its number.
func respond(t *testing.T, c *Conn, p peer) (*Stream, uint32) {
	t.Helper()
	s, id := open(t, c, p)
	p.send(Frame{Stream: id, Type: Response, Head: []byte("head"), Data: []byte("first")})
	if f, err := s.Recv(context.Background()); err != nil || f.Type != Response {
		t.Fatalf("got %+v, %v, want RESPONSE", f, err)
	}
	return s, id
}

func TestAwaitLeavesToRecvWhatTryRecvDoesNotReturn(t *testing.T) {
	const size = 10
	for name, last := range map[string]Frame{
		"a large part": {Type: Data, Data: make([]byte, size+1)},
		"the end":      {Type: Data, End: true, Data: []byte("end")},
		"an error":     {Type: Error, Head: []byte("oh")},
		"trailers":     {Type: Trailers, Head: []byte("tail")},
	} {
		t.Run(name, func(t *testing.T) {
			c, p, _, _ := connect(t)
			s, id := respond(t, c, p)
			passed := make(chan []byte, 1)
			over := await(s, nil, func() bool {
				f, ok, more := s.TryRecv(size)
				if ok {
					passed <- bytes.Clone(f.Data)
				}
				return !more
			})
			for n := range 3 {
				part := fmt.Append(nil, "part ", n)
				p.send(Frame{Stream: id, Type: Data, Data: part})
				select {
				case got := <-passed:
					if !bytes.Equal(got, part) {
						t.Fatalf("got %q, want %q", got, part)
					}
				case <-time.After(10 * time.Second):
					t.Fatal("a part was not passed on")
				}
			}
			last.Stream = id
			p.send(last)
			waitFor(t, over, "the end of Await")
			f, err := s.Recv(context.Background())
			if err != nil || f.Type != last.Type || !bytes.Equal(f.Data, last.Data) || !bytes.Equal(f.Head, last.Head) {
				t.Fatalf("got %+v, %v, want %+v", f, err, last)
			}
			if !f.closes() {
				s.Reset()
			}
			s.Release()
		})
	}
}

func TestAwaitEndsWithItsStream(t *testing.T) {
	for name, end := range map[string]func(*Conn, *Stream, chan struct{}){
		"done":   func(_ *Conn, _ *Stream, done chan struct{}) { close(done) },
		"reset":  func(_ *Conn, s *Stream, _ chan struct{}) { s.Reset() },
		"closed": func(c *Conn, _ *Stream, _ chan struct{}) { c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			c, p, _, _ := connect(t)
			s, _ := respond(t, c, p)
			done := make(chan struct{})
			over := await(s, done, func() bool { return true })
			end(c, s, done)
			waitFor(t, over, "the end of Await")
			s.Reset()
			s.Release()
		})
	}
}

// What came just before a breach of the protocol is passed on, or the stream would have ended without a word.
func TestAwaitEndsWithAStreamBeforeAMalformedFrame(t *testing.T) {
	c, p, _, _ := connect(t)
	s, id := respond(t, c, p)
	over := await(s, nil, func() bool {
		_, _, more := s.TryRecv(MaxData)
		return !more
	})
	b, err := Append(nil, Frame{Stream: id, Type: Data, End: true, Data: []byte("last")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.rw.Write(append(b, bytes.Repeat([]byte{0xff}, HeaderSize)...)); err != nil {
		t.Fatal(err)
	}
	waitFor(t, over, "the end of Await")
	if f, err := s.Recv(context.Background()); err != nil || string(f.Data) != "last" {
		t.Errorf("got %+v, %v, want the last part", f, err)
	}
	s.Release()
}

func TestAwaitSeesAResetThatCameBefore(t *testing.T) {
	c, p, _, _ := connect(t)
	s, id := respond(t, c, p)
	p.send(Frame{Stream: id, Type: Data, Data: []byte("part")})
	for !s.More() {
		time.Sleep(time.Millisecond)
	}
	s.Reset()
	<-s.arrived // as Recv does before it returns the part
	if f, err := s.Recv(context.Background()); err != nil || f.Type != Data {
		t.Fatalf("got %+v, %v, want DATA", f, err)
	}
	waitFor(t, await(s, nil, func() bool { return true }), "the end of Await")
	s.Release()
}

// The goroutine that reads must never write to the worker, which may wait for it to read.
func TestAwaitLeavesCreditToRecv(t *testing.T) {
	c, p, _, _ := connect(t)
	s, id := respond(t, c, p)
	passed, begun := 0, make(chan struct{}, 1)
	over := await(s, nil, func() bool {
		f, ok, more := s.TryRecv(MaxData)
		if ok {
			passed += len(f.Data)
			s.Consumed(len(f.Data))
			notify(begun)
		}
		return !more
	})
	part := Frame{Stream: id, Type: Data, Data: make([]byte, 1000)}
	p.send(part)
	waitFor(t, begun, "the first part")
	for sent := len(part.Data); sent < creditDue; sent += len(part.Data) {
		p.send(part)
	}
	waitFor(t, over, "the end of Await")
	if passed == 0 || passed >= creditDue {
		t.Errorf("%d bytes were passed on, want fewer than %d", passed, creditDue)
	}
	for passed < creditDue {
		f, err := s.Recv(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		passed += len(f.Data)
		s.Consumed(len(f.Data))
	}
	if f := p.receive(); f.Type != Credit {
		t.Errorf("the worker got %+v, want CREDIT", f)
	}
	s.Reset()
	s.Release()
}

// Streams that begin and stop to be awaited while parts come, more of them than one goroutine takes care of, lose nothing.
func TestAwaitManyStreams(t *testing.T) {
	const streams, parts = 3 * group, 50
	c, p, _, _ := connect(t)
	ids := make([]uint32, streams)
	got := make([][]byte, streams)
	var readers sync.WaitGroup
	for n := range streams {
		s, id := respond(t, c, p)
		ids[n] = id
		readers.Go(func() {
			for {
				s.Await(nil, func() bool {
					f, ok, more := s.TryRecv(MaxData)
					if ok {
						got[n] = append(got[n], f.Data...)
					}
					return !more && len(got[n])%7 != 0 // some end early
				})
				f, err := s.Recv(context.Background())
				if err != nil {
					t.Error(err)
					return
				}
				got[n] = append(got[n], f.Data...)
				if f.End {
					s.Release()
					return
				}
			}
		})
	}
	var batch []byte
	for part := range parts {
		batch = batch[:0]
		for _, id := range ids {
			batch, _ = Append(batch, Frame{Stream: id, Type: Data, End: part == parts-1, Data: []byte{byte(part)}})
		}
		if _, err := p.rw.Write(batch); err != nil {
			t.Fatal(err)
		}
	}
	readers.Wait()
	for n := range streams {
		for part := range parts {
			if len(got[n]) != parts || got[n][part] != byte(part) {
				t.Fatalf("stream %d got %v", n, got[n])
			}
		}
	}
}
