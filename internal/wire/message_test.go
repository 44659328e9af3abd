package wire

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"testing"
	"time"
)

// acceptSocket opens a stream that the worker accepts as a WebSocket, and returns it with its number and a channel that
// gets a token when it is told that there is something.
func acceptSocket(t *testing.T, c *Conn, p peer) (*Stream, uint32, chan struct{}) {
	t.Helper()
	s, id := open(t, c, p)
	p.send(Frame{Stream: id, Type: Accept, Head: []byte("head")})
	f, err := s.Recv(context.Background())
	if err != nil || f.Type != Accept || string(f.Head) != "head" {
		t.Fatalf("got %+v, %v, want ACCEPT", f, err)
	}
	told := make(chan struct{}, 100)
	s.Listen(func() { told <- struct{}{} })
	<-told
	return s, id, told
}

func TestMessagesAreToldOf(t *testing.T) {
	c, p, _, _ := connect(t)
	s, id, told := acceptSocket(t, c, p)
	if _, ok, err := s.Next(); ok || err != nil {
		t.Fatalf("got a frame, %v", err)
	}
	// Nobody waits in Recv: the connection's own goroutine has to read.
	for _, want := range []Frame{
		{Stream: id, Type: Text, Data: []byte("one ")}, {Stream: id, Type: Text, End: true, Data: []byte("two")},
		{Stream: id, Type: Binary, End: true}, {Stream: id, Type: Close, Head: []byte("bye")},
	} {
		p.send(want)
		select {
		case <-told:
		case <-time.After(10 * time.Second):
			t.Fatalf("nobody told of %+v", want)
		}
		got, ok, err := s.Next()
		if !ok || err != nil || got.Type != want.Type || got.End != want.End || !bytes.Equal(got.Data, want.Data) {
			t.Fatalf("got %+v, %v, %v, want %+v", got, ok, err, want)
		}
	}
	s.SendClose([]byte("late")) // the worker has closed: it gets nothing more
	s.Unlisten()
	s.Release()
}

func TestMessagesNeedCredit(t *testing.T) {
	c, p, _, _ := connect(t)
	s, id, _ := acceptSocket(t, c, p)
	frame := append(AppendHeader(nil), make([]byte, MaxData)...)
	sent := 0
	for sent+MaxData+MessageCost < Window {
		if credit := s.MessageCredit(func(bool) { t.Error("it waits although there is credit") }); credit != MaxData {
			t.Fatalf("credit for %d", credit)
		}
		s.SendMessage(Binary, frame, true)
		sent += MaxData + MessageCost
		if f := p.receive(); f.Type != Binary || !f.End || len(f.Data) != MaxData {
			t.Fatalf("the worker got %+v", f.Type)
		}
	}
	rest := Window - sent
	if credit := s.MessageCredit(nil); credit != rest {
		t.Fatalf("credit for %d, want %d", credit, rest)
	}
	s.SendMessage(Text, frame[:HeaderSize+rest], false) // overdraws by MessageCost
	p.receive()
	waiting := make(chan bool, 2)
	credit := make(chan int)
	go func() { credit <- s.MessageCredit(func(on bool) { waiting <- on }) }()
	if !<-waiting {
		t.Fatal("it does not wait")
	}
	p.send(Frame{Stream: id, Type: Credit, Data: binary.LittleEndian.AppendUint32(nil, 1000)})
	if got := <-credit; got != 1000-MessageCost {
		t.Errorf("credit for %d", got)
	}
	s.SendClose([]byte("head"))
	if f := p.receive(); f.Type != Close || string(f.Head) != "head" {
		t.Errorf("the worker got %+v, want CLOSE", f)
	}
	if got := s.MessageCredit(func(bool) {}); got != 0 {
		t.Errorf("credit for %d after the end", got)
	}
	if _, _, err := s.Next(); !errors.Is(err, ErrReset) {
		t.Errorf("got %v, want ErrReset", err)
	}
}

// A worker that breaks the rules of WebSockets loses its connection, and with it all streams fail.
func TestMessagesOutOfOrder(t *testing.T) {
	for name, frames := range map[string][]Frame{
		"a message before ACCEPT": {{Type: Text, End: true}},
		"a second ACCEPT":         {{Type: Accept}, {Type: Accept}},
		"RESPONSE after ACCEPT":   {{Type: Accept}, {Type: Response}},
		"DATA after ACCEPT":       {{Type: Accept}, {Type: Data, Data: []byte("x")}},
		"more than the credit": {
			{Type: Accept}, {Type: Text, Data: make([]byte, Window)}, {Type: Text, Data: make([]byte, 1)},
		},
		"empty messages beyond the credit": func() []Frame {
			frames := []Frame{{Type: Accept}}
			for range Window/MessageCost + 1 {
				frames = append(frames, Frame{Type: Text, End: true})
			}
			return frames
		}(),
	} {
		t.Run(name, func(t *testing.T) {
			c, p, _, ended := connect(t)
			_, id := open(t, c, p)
			for _, f := range frames {
				f.Stream = id
				b, err := Append(nil, f)
				if err != nil {
					t.Fatal(err)
				}
				_, _ = p.rw.Write(b) // the connection may have been closed
			}
			if err := <-ended; !errors.Is(err, ErrProtocol) {
				t.Errorf("got %v, want ErrProtocol", err)
			}
		})
	}
}

func TestACloseDoesNotWaitForAWorkerThatTakesNothing(t *testing.T) {
	ours, theirs := net.Pipe() // a write lasts until the other end has read it
	defer func() { _ = theirs.Close() }()
	c, p := NewConn(ours, nil, &recorder{}), peer{t, theirs}
	go func() { _ = c.Run() }()
	defer c.Close()
	opened := make(chan *Stream, 1)
	go func() {
		frame := AppendHeader(nil)
		if err := PutHeader(frame, Request, true, 0); err != nil {
			t.Error(err)
		}
		s, err := c.Open(frame, nil)
		if err != nil {
			t.Error(err)
		}
		opened <- s
	}()
	id := p.receive().Stream
	s := <-opened
	p.send(Frame{Stream: id, Type: Accept})
	if f, err := s.Recv(context.Background()); err != nil || f.Type != Accept {
		t.Fatalf("got %+v, %v, want ACCEPT", f, err)
	}
	told := make(chan struct{})
	go func() {
		s.SendClose([]byte("head"))
		close(told)
	}()
	select {
	case <-told:
	case <-time.After(10 * time.Second):
		t.Error("it waits for the worker")
	}
	if f := p.receive(); f.Type != Close || string(f.Head) != "head" {
		t.Errorf("the worker got %+v, want CLOSE", f)
	}
}
