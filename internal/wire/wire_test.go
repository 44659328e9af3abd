package wire

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// recorder is a Handler that notes what it is told.
type recorder struct {
	mu      sync.Mutex
	control []Type
	closed  int
}

func (r *recorder) Control(f Frame) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.control = append(r.control, f.Type)
	return nil
}

func (r *recorder) Accepted() {}

func (r *recorder) Closed(bool, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed++
}

// peer is the worker's end.
type peer struct {
	t  *testing.T
	rw net.Conn
}

func (p peer) send(f Frame) {
	p.t.Helper()
	b, err := Append(nil, f)
	if err != nil {
		p.t.Fatal(err)
	}
	if _, err := p.rw.Write(b); err != nil {
		p.t.Fatal(err)
	}
}

func (p peer) receive() Frame {
	p.t.Helper()
	b := make([]byte, HeaderSize)
	if _, err := io.ReadFull(p.rw, b); err != nil {
		p.t.Fatal(err)
	}
	b = append(b, make([]byte, binary.LittleEndian.Uint32(b))...)
	if _, err := io.ReadFull(p.rw, b[HeaderSize:]); err != nil {
		p.t.Fatal(err)
	}
	f, _, _, err := Parse(b)
	if err != nil {
		p.t.Fatal(err)
	}
	return f
}

// connect returns a running Conn, the other end, and what Run will return.
func connect(t *testing.T) (*Conn, peer, *recorder, <-chan error) {
	t.Helper()
	ours, theirs := socketpair(t)
	t.Cleanup(func() { _ = theirs.Close() })
	handler := &recorder{}
	c := NewConn(ours, nil, handler)
	ended := make(chan error, 1)
	go func() { ended <- c.Run() }()
	t.Cleanup(c.Close)
	return c, peer{t, theirs}, handler, ended
}

// socketpair returns two connected sockets, buffered as real ones are.
func socketpair(t *testing.T) (net.Conn, net.Conn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	dialed, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return dialed, accepted
}

// open begins a stream and returns it with the number that the worker saw.
func open(t *testing.T, c *Conn, p peer) (*Stream, uint32) {
	t.Helper()
	return openNoted(t, c, p, nil)
}

func openNoted(t *testing.T, c *Conn, p peer, note any) (*Stream, uint32) {
	t.Helper()
	frame := AppendHeader(nil)
	if err := PutHeader(frame, Request, true, 0); err != nil {
		t.Fatal(err)
	}
	streams := make(chan *Stream, 1)
	go func() {
		s, err := c.Open(frame, note)
		if err != nil {
			t.Error(err)
		}
		streams <- s
	}()
	f := p.receive()
	if f.Type != Request || !f.End {
		t.Fatalf("got %+v, want a REQUEST with END", f)
	}
	return <-streams, f.Stream
}

func TestResponse(t *testing.T) {
	c, p, handler, _ := connect(t)
	s, id := open(t, c, p)
	p.send(Frame{Stream: id, Type: Response, Head: []byte("head"), Data: []byte("one ")})
	p.send(Frame{Stream: id, Type: Data, Data: []byte("two ")})
	p.send(Frame{Stream: id, Type: Data, Data: []byte("three"), End: true})
	// Parts that came together arrive as one.
	var head, data []byte
	for ended := false; !ended; {
		f, err := s.Recv(context.Background())
		if err != nil || (f.Type != Response) != (head != nil) {
			t.Fatalf("got %+v, %v", f, err)
		}
		head, data, ended = append(head, f.Head...), append(data, f.Data...), f.End
	}
	if string(head) != "head" || string(data) != "one two three" {
		t.Errorf("got %q and %q", head, data)
	}
	s.Release()
	s, id2 := open(t, c, p) // the reader has dealt with the first stream by now
	if id2 == id {
		t.Errorf("stream %d is used again", id)
	}
	s.Reset()
	s.Release()
	handler.mu.Lock()
	defer handler.mu.Unlock()
	if handler.closed != 1 {
		t.Errorf("%d streams closed, want 1", handler.closed)
	}
}

func TestCancelledStreamStaysOpenUntilTheWorkerClosesIt(t *testing.T) {
	c, p, handler, _ := connect(t)
	s, id := open(t, c, p)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.Recv(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want context.Canceled", err)
	}
	go func() {
		s.Reset()
		s.Release()
	}()
	if f := p.receive(); f.Type != Reset || f.Stream != id {
		t.Fatalf("got %+v, want RESET", f)
	}
	// Late frames of the cancelled stream meet nobody.
	p.send(Frame{Stream: id, Type: Response, Data: []byte("late")})
	other, otherID := open(t, c, p)
	if otherID == id {
		t.Fatal("the cancelled stream's number is used again while it is open")
	}
	p.send(Frame{Stream: id, Type: Reset})
	p.send(Frame{Stream: otherID, Type: Response, Data: []byte("mine"), End: true})
	f, err := other.Recv(context.Background())
	if err != nil || string(f.Data) != "mine" {
		t.Fatalf("got %+v, %v", f, err)
	}
	other.Release()
	handler.mu.Lock()
	defer handler.mu.Unlock()
	if handler.closed == 0 {
		t.Error("closing the cancelled stream was not reported")
	}
}

func TestResetAllEndsEveryWait(t *testing.T) {
	c, p, _, _ := connect(t)
	const count = 3 // one reads, or Run does, and the others wait for it
	results := make(chan error, count)
	for range count {
		s, _ := open(t, c, p)
		go func() {
			_, err := s.Recv(context.Background())
			s.Release()
			results <- err
		}()
	}
	c.ResetAll()
	for range count {
		if err := <-results; !errors.Is(err, ErrReset) {
			t.Errorf("got %v, want ErrReset", err)
		}
		if f := p.receive(); f.Type != Reset {
			t.Errorf("the worker got %+v, want RESET", f)
		}
	}
}

func TestResetAllDoesNotOvertakeARequest(t *testing.T) {
	ours, theirs := net.Pipe() // a write lasts until the other end has read it
	defer func() { _ = theirs.Close() }()
	c, p := NewConn(ours, nil, &recorder{}), peer{t, theirs}
	defer c.Close()
	const count = 2 // one is being written, the other waits for its turn
	results := make(chan error, count)
	for number := range uint32(count) {
		go func() {
			frame := append(AppendHeader(nil), make([]byte, largeWrite)...)
			if err := PutHeader(frame, Request, true, 0); err != nil {
				t.Error(err)
			}
			s, err := c.Open(frame, nil)
			if err == nil {
				_, err = s.Recv(context.Background())
			}
			results <- err
		}()
		for deadline := time.Now().Add(10 * time.Second); c.Newest() <= number; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("the stream was not opened")
			}
		}
	}
	c.ResetAll()
	var got [count + 1][]Type
	for range 2 * count {
		f := p.receive()
		got[f.Stream] = append(got[f.Stream], f.Type)
	}
	for number, types := range got[1:] {
		if !slices.Equal(types, []Type{Request, Reset}) {
			t.Errorf("stream %d: the worker got frames of types %v, want REQUEST and RESET", number+1, types)
		}
	}
	for range count {
		if err := <-results; !errors.Is(err, ErrReset) {
			t.Errorf("got %v, want ErrReset", err)
		}
	}
}

func TestNumbersSkipOpenStreamsAfterWrapping(t *testing.T) {
	c, p, _, _ := connect(t)
	first, id := open(t, c, p)
	c.streamMu.Lock()
	c.last = ^uint32(0)
	c.streamMu.Unlock()
	second, id2 := open(t, c, p)
	if id != 1 || id2 != 2 {
		t.Errorf("got streams %d and %d, want 1 and 2", id, id2)
	}
	for _, s := range []*Stream{first, second} {
		go func() {
			s.Reset()
			s.Release()
		}()
		p.receive()
	}
}

func TestBodyWaitsForCredit(t *testing.T) {
	c, p, _, _ := connect(t)
	s, id := open(t, c, p)
	credit := make(chan int, 1)
	go func() { credit <- s.Credit(context.Background()) }()
	p.send(Frame{Stream: id, Type: Credit, Data: []byte{5, 0, 0, 0}})
	if n := <-credit; n != 5 {
		t.Fatalf("got credit for %d bytes, want 5", n)
	}
	go s.Send(append(AppendHeader(nil), "hello"...), true)
	if f := p.receive(); f.Type != Data || string(f.Data) != "hello" || !f.End {
		t.Fatalf("got %+v", f)
	}
	go func() { credit <- s.Credit(context.Background()) }()
	p.send(Frame{Stream: id, Type: Error})
	if n := <-credit; n != 0 {
		t.Fatalf("got credit for %d bytes on a closed stream", n)
	}
	s.Release()
}

func TestCreditComesBackWhenTheClientHasTakenHalfAWindow(t *testing.T) {
	c, p, _, _ := connect(t)
	s, id := open(t, c, p)
	p.send(Frame{Stream: id, Type: Response})
	for sent := 0; sent < Window; sent += MaxData {
		p.send(Frame{Stream: id, Type: Data, Data: make([]byte, MaxData)})
	}
	returned := make(chan int, 1)
	go func() {
		f := p.receive()
		returned <- int(binary.LittleEndian.Uint32(f.Data))
	}()
	taken := 0
	for taken < Window/2 {
		f, err := s.Recv(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		s.Consumed(len(f.Data))
		taken += len(f.Data)
	}
	if n := <-returned; n != taken {
		t.Errorf("got %d bytes of credit, want %d", n, taken)
	}
	go s.Reset()
	p.receive()
}

func TestViolationsCloseTheConnection(t *testing.T) {
	header := func(length, stream, word uint32) []byte {
		b := binary.LittleEndian.AppendUint32(nil, length)
		b = binary.LittleEndian.AppendUint32(b, stream)
		return binary.LittleEndian.AppendUint32(b, word)
	}
	tests := map[string][]byte{
		"over the cap":             header(MaxFrame+1, 1, uint32(Data)),
		"length overflow":          header(^uint32(0), 1, uint32(Data)),
		"head beyond the frame":    header(4, 1, 5<<8|uint32(Response)),
		"unknown type":             header(0, 1, 99),
		"type 0":                   header(0, 1, 0),
		"unknown stream":           header(0, 7, uint32(Error)),
		"a worker's REQUEST":       header(0, 1, uint32(Request)),
		"credit of no size":        header(0, 1, uint32(Credit)),
		"data before the response": append(header(1, 1, uint32(Data)), 'x'),
		"empty data":               append(header(0, 1, uint32(Response)), header(0, 1, uint32(Data))...),
		"second response":          append(header(0, 1, uint32(Response)), header(0, 1, uint32(Response))...),
		"credit overrun": append(header(0, 1, uint32(Response)),
			append(header(Window+1, 1, uint32(Data)), make([]byte, Window+1)...)...),
		"credit overrun at the end": append(header(0, 1, uint32(Response)),
			append(header(Window+1, 1, uint32(Data)|endBit), make([]byte, Window+1)...)...),
		"trailers before the response": header(0, 1, uint32(Trailers)),
		"credit overflow": append(append(header(4, 1, uint32(Credit)), 0xff, 0xff, 0xff, 0x7f),
			append(header(4, 1, uint32(Credit)), 0xff, 0xff, 0xff, 0x7f)...),
	}
	for name, data := range tests {
		t.Run(name, func(t *testing.T) {
			c, p, _, ended := connect(t)
			s, _ := open(t, c, p)
			_, _ = p.rw.Write(data) // fails when the other side closes in the midst of it
			if err := <-ended; !errors.Is(err, ErrProtocol) {
				t.Errorf("Run returned %v, want ErrProtocol", err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			for {
				if _, err := s.Recv(ctx); err != nil {
					if !errors.Is(err, ErrClosed) {
						t.Errorf("Recv returned %v, want ErrClosed", err)
					}
					break
				}
			}
			s.Release()
			if _, err := c.Open(AppendHeader(nil), nil); !errors.Is(err, ErrClosed) {
				t.Errorf("Open returned %v, want ErrClosed", err)
			}
		})
	}
}

func TestTruncatedFrameIsNoCleanEnd(t *testing.T) {
	_, p, _, ended := connect(t)
	_, _ = p.rw.Write([]byte{1, 2, 3})
	_ = p.rw.Close()
	if err := <-ended; err == nil {
		t.Error("Run returned nil for a connection that ended within a frame")
	}
}

func TestFramesSplitAnywhereArriveWhole(t *testing.T) {
	var all []byte
	for _, f := range []Frame{
		{Type: Log, Head: []byte("one")},
		{Type: Ready},
		{Type: Log, Head: bytes.Repeat([]byte("x"), 2*readBuffer)},
		{Type: Ready},
	} {
		all, _ = Append(all, f)
	}
	for _, size := range []int{1, 7, 12, 13, 4096, len(all)} {
		_, p, handler, ended := connect(t)
		for rest := all; len(rest) > 0; rest = rest[min(size, len(rest)):] {
			if _, err := p.rw.Write(rest[:min(size, len(rest))]); err != nil {
				t.Fatal(err)
			}
		}
		_ = p.rw.Close()
		if err := <-ended; err != nil {
			t.Fatalf("in pieces of %d: %v", size, err)
		}
		if len(handler.control) != 4 {
			t.Errorf("in pieces of %d: got %v", size, handler.control)
		}
	}
}

func TestPutHeaderRefusesWhatIsTooLarge(t *testing.T) {
	b := AppendHeader(nil)
	b = append(b, strings.Repeat("x", MaxFrame+1)...)
	if err := PutHeader(b, Request, true, 0); err == nil {
		t.Error("a frame over MaxFrame was accepted")
	}
}

// FuzzParse looks for panics and wrong sizes, and checks that what parses is what Append would have written.
func FuzzParse(f *testing.F) {
	seed, _ := Append(nil, Frame{Stream: 3, Type: Response, End: true, Head: []byte("head"), Data: []byte("data")})
	f.Add(seed)
	f.Add(seed[:HeaderSize])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		frame, size, need, err := Parse(data)
		switch {
		case err != nil:
			if !errors.Is(err, ErrProtocol) {
				t.Errorf("error %v is no ErrProtocol", err)
			}
		case size == 0:
			if need <= len(data) || need > HeaderSize+MaxFrame {
				t.Errorf("needs %d of %d bytes", need, len(data))
			}
		default:
			again, err := Append(nil, frame)
			if err != nil || !bytes.Equal(again, data[:size]) {
				t.Errorf("%x became %x, %v", data[:size], again, err)
			}
		}
	})
}
