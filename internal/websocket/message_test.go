package websocket

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsflate"
)

// client is the peer's end.
type client struct {
	t *testing.T
	net.Conn
}

// connect returns a Conn and its peer. real: the transport is a socket, which is read without holding a buffer.
func connect(t *testing.T, real bool, received []byte, options Options) (*Conn, client) {
	t.Helper()
	ours, theirs := net.Pipe()
	if real {
		ours, theirs = socketpair(t)
	}
	if options.MaxSize == 0 {
		options.MaxSize = 1 << 20
	}
	c := New(ours, received, options)
	t.Cleanup(func() {
		c.Close()
		_ = theirs.Close()
	})
	return c, client{t, theirs}
}

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
	return accepted, dialed
}

// frame makes a masked frame.
func frame(op ws.OpCode, fin bool, payload []byte) []byte {
	f := ws.NewFrame(op, fin, bytes.Clone(payload))
	return ws.MustCompileFrame(ws.MaskFrameInPlace(f))
}

// compressed makes a masked frame of a compressed message.
func compressed(message string) []byte {
	w := newDeflater(maxBits)
	w.write([]byte(message), true)
	f := frame(ws.OpBinary, true, w.made)
	f[0] |= 0x40
	return f
}

// next reads a frame of the Conn's.
func (c client) next() ws.Frame {
	c.t.Helper()
	return readFrame(c.t, c)
}

func readFrame(t *testing.T, r io.Reader) ws.Frame {
	t.Helper()
	h, err := ws.ReadHeader(r)
	if err != nil {
		t.Fatal(err)
	}
	f := ws.Frame{Header: h, Payload: make([]byte, h.Length)}
	if _, err := io.ReadFull(r, f.Payload); err != nil {
		t.Fatal(err)
	}
	return f
}

// receive reads one message.
func receive(t *testing.T, c *Conn) (binary bool, data []byte) {
	t.Helper()
	for {
		part, err := c.Next()
		if err != nil {
			t.Fatal(err)
		}
		data = append(data, part.Frame[Room:]...)
		clear(part.Frame[:Room]) // the caller's to overwrite
		if part.End {
			return part.Binary, data
		}
	}
}

// Messages come out as they went in, however they are cut into frames and reads.
func TestMessages(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, real := range []bool{true, false} {
		var stream []byte
		var want []string
		for range 200 {
			message := strings.Repeat("aä€😀", random.IntN(1<<random.IntN(14)))
			op := ws.OpText
			if random.IntN(2) == 0 {
				op, message = ws.OpBinary, message+"\xff"
			}
			want = append(want, message)
			for rest := []byte(message); ; {
				n := min(len(rest), 1+random.IntN(20_000))
				stream = append(stream, frame(op, n == len(rest), rest[:n])...)
				stream = append(stream, frame(ws.OpPong, true, []byte("ignored"))...)
				op, rest = ws.OpContinuation, rest[n:]
				if len(rest) == 0 {
					break
				}
			}
		}
		early := stream[:min(1000, len(stream))]
		c, peer := connect(t, real, early, Options{})
		go func() {
			for rest := stream[len(early):]; len(rest) > 0; {
				n := min(len(rest), 1+random.IntN(10_000))
				if _, err := peer.Write(rest[:n]); err != nil {
					t.Error(err)
					return
				}
				rest = rest[n:]
			}
		}()
		for i, message := range want {
			binary, data := receive(t, c)
			if string(data) != message || binary != strings.HasSuffix(message, "\xff") {
				t.Fatalf("real %v, message %d: %d bytes, binary %v; want %d bytes", real, i, len(data), binary, len(message))
			}
		}
	}
}

// The buffer of a read belongs to nobody while nothing comes.
func TestWaitingHoldsNoBuffer(t *testing.T) {
	c, peer := connect(t, true, nil, Options{Compression: Compression{On: true, bits: maxBits}})
	ended := make(chan error, 1)
	go func() {
		_, err := c.Next()
		if err == nil {
			_, err = c.Next()
		}
		ended <- err
	}()
	if _, err := peer.Write(compressed("before")); err != nil {
		t.Fatal(err)
	}
	whole := frame(ws.OpText, true, []byte("x"))
	if _, err := peer.Write(whole[:3]); err != nil { // a part of the header
		t.Fatal(err)
	}
	_ = peer.Close()
	var closed *CloseError
	if err := <-ended; !errors.As(err, &closed) || closed.Code != CodeLost {
		t.Fatalf("got %v, want a lost connection", err)
	}
	if c.input.buf != nil || c.input.chunk != nil || c.input.small != nil || c.inflater != nil {
		t.Error("a buffer is held")
	}
}

func TestPing(t *testing.T) {
	const interval = 10 * time.Millisecond
	c, peer := connect(t, true, nil, Options{PingInterval: interval, PingTimeout: time.Minute})
	go func() {
		for {
			if _, err := c.Next(); err != nil {
				return
			}
		}
	}()
	for range 3 { // a further one comes when the last was answered
		if f := peer.next(); f.Header.OpCode != ws.OpPing {
			t.Fatalf("got %+v, want a ping", f.Header)
		}
		if _, err := peer.Write(frame(ws.OpPong, true, nil)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPingTimeout(t *testing.T) {
	c, peer := connect(t, true, nil, Options{PingInterval: time.Millisecond, PingTimeout: time.Millisecond})
	_, err := c.Next()
	var closed *CloseError
	if !errors.As(err, &closed) || *closed != (CloseError{CodeLost, "ping timeout"}) {
		t.Errorf("got %v, want a ping timeout", err)
	}
	if f := peer.next(); f.Header.OpCode != ws.OpPing {
		t.Errorf("got %+v, want a ping", f.Header)
	}
}

// A peer that does not even take the ping has not answered it.
func TestPingTimeoutOfStuckPeer(t *testing.T) {
	transport := &stuck{writing: make(chan struct{}), closed: make(chan struct{})}
	c := New(transport, nil, Options{PingInterval: time.Millisecond, PingTimeout: time.Millisecond, MaxSize: 1})
	select {
	case <-transport.closed:
	case <-time.After(10 * time.Second):
		t.Fatal("it was not given up")
	}
	if _, err := c.Next(); !errors.As(err, new(*CloseError)) {
		t.Errorf("got %v", err)
	}
}

// While the caller waits for somebody else, the peer's answer cannot be seen.
func TestNoPingTimeoutWhilePaused(t *testing.T) {
	c, peer := connect(t, true, nil, Options{PingInterval: time.Millisecond, PingTimeout: time.Millisecond})
	c.Pause(true)
	for range 20 {
		c.tick()
	}
	if _, err := peer.Write(frame(ws.OpText, true, []byte("there"))); err != nil {
		t.Fatal(err)
	}
	if _, data := receive(t, c); string(data) != "there" {
		t.Errorf("got %q", data)
	}
}

func TestShutInterruptsNext(t *testing.T) {
	c, peer := connect(t, true, nil, Options{})
	ended := make(chan error, 1)
	go func() {
		_, err := c.Next()
		ended <- err
		c.Linger()
		c.Close()
	}()
	c.Shut(1012, strings.Repeat("ä", 100))
	if err := <-ended; err == nil {
		t.Error("Next goes on")
	}
	f := peer.next()
	code, reason := ws.ParseCloseFrameData(f.Payload)
	if f.Header.OpCode != ws.OpClose || code != 1012 || reason != strings.Repeat("ä", 61) {
		t.Errorf("got %+v, %d %q", f.Header, code, reason)
	}
	c.Shut(1000, "") // only the first one counts
	if err := c.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	// What was under way is read, or the connection would take the Close back.
	if _, err := peer.Write(append(frame(ws.OpBinary, true, make([]byte, 100_000)), frame(ws.OpClose, true, f.Payload[:2])...)); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(peer); err != nil || len(rest) > 0 {
		t.Errorf("got %q, %v, want the end", rest, err)
	}
}

// A transport may be gone when Close has returned: nothing uses it from then on.
func TestNothingUsesTransportAfterClose(t *testing.T) {
	transport := &stuck{writing: make(chan struct{}), closed: make(chan struct{})}
	c := New(transport, nil, Options{PingInterval: time.Hour, MaxSize: 1})
	shut := make(chan struct{})
	go func() {
		c.Shut(CodeRestart, "")
		close(shut)
	}()
	<-transport.writing
	c.Close()
	transport.gone.Store(true)
	<-shut
	c.tick()
	transport = &stuck{writing: make(chan struct{}), closed: make(chan struct{})}
	c = New(transport, nil, Options{MaxSize: 1})
	c.Close()
	transport.gone.Store(true)
	c.Shut(CodeRestart, "")
	if transport.misused.Load() {
		t.Error("it was used after Close")
	}
}

// stuck is a transport whose peer takes nothing.
type stuck struct {
	script
	writing, closed chan struct{}
	gone, misused   atomic.Bool
}

func (s *stuck) Write([]byte) (int, error) {
	s.use()
	close(s.writing)
	<-s.closed
	time.Sleep(time.Millisecond) // so that Close would be back if it did not wait
	s.use()
	return 0, io.ErrClosedPipe
}

func (s *stuck) Close() error {
	s.use()
	close(s.closed)
	return nil
}

func (s *stuck) SetReadDeadline(time.Time) error {
	s.use()
	return nil
}

func (s *stuck) use() {
	if s.gone.Load() {
		s.misused.Store(true)
	}
}

// The part of a compressed message that Next has returned stays as it is while other sockets receive.
func TestCompressedPartStaysValid(t *testing.T) {
	options := Options{Compression: Compression{On: true, bits: maxBits}}
	for i := range 20 { // a pool gives a buffer back to whoever comes next, most of the time
		var parts [2]Part
		for j := range parts {
			c, peer := connect(t, true, nil, options)
			if _, err := peer.Write(compressed(strings.Repeat(string([]byte{byte(i), byte(j)}), 1000))); err != nil {
				t.Fatal(err)
			}
			var err error
			if parts[j], err = c.Next(); err != nil || !parts[j].End {
				t.Fatalf("got %+v, %v", parts[j], err)
			}
		}
		for j, part := range parts {
			if !bytes.Equal(part.Frame[Room:], bytes.Repeat([]byte{byte(i), byte(j)}, 1000)) {
				t.Fatalf("message %d of %d is another socket's: %x", j, i, part.Frame[Room:Room+2])
			}
		}
	}
}

// A Close may come when Next is over already: what is under way is read all the same.
func TestShutDoesNotInterruptLinger(t *testing.T) {
	c, peer := connect(t, true, nil, Options{})
	if _, err := peer.Write(frame(ws.OpBinary, false, []byte("x"))); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Next(); err != nil {
		t.Fatal(err)
	}
	lingered := make(chan struct{})
	go func() {
		c.Linger()
		c.Close()
		close(lingered)
	}()
	much := frame(ws.OpContinuation, true, make([]byte, 20_000_000)) // more than fits into buffers
	if _, err := peer.Write(much); err != nil {
		t.Fatal(err)
	}
	c.Shut(CodeRestart, "")
	f := peer.next()
	if code, _ := ws.ParseCloseFrameData(f.Payload); code != CodeRestart {
		t.Errorf("got %+v", f)
	}
	select {
	case <-lingered:
		t.Error("the answer was not waited for")
	default:
	}
	if _, err := peer.Write(frame(ws.OpClose, true, f.Payload)); err != nil {
		t.Error(err)
	}
	<-lingered
	if rest, err := io.ReadAll(peer); err != nil || len(rest) > 0 {
		t.Errorf("got %q, %v, want the end", rest, err)
	}
}

// What is announced too large costs nothing, and what inflates too large is not held.
func TestThreat16TooLarge(t *testing.T) {
	header := func(length int64) []byte {
		var b bytes.Buffer
		_ = ws.WriteHeader(&b, ws.Header{Fin: true, OpCode: ws.OpBinary, Length: length, Masked: true})
		return b.Bytes()
	}
	for name, sent := range map[string][]byte{
		"announced":  header(1<<20 + 1),
		"enormous":   header(1<<63 - 1),
		"fragments":  append(frame(ws.OpText, false, make([]byte, 1<<20)), frame(ws.OpContinuation, true, []byte("x"))...),
		"compressed": compressed(strings.Repeat("\x00", 64<<20)),
	} {
		c, peer := connect(t, true, nil, Options{Compression: Compression{On: true, bits: maxBits}})
		go func() { _, _ = peer.Write(sent) }()
		got, err := 0, error(nil)
		for err == nil {
			var part Part
			if part, err = c.Next(); err == nil {
				got += len(part.Frame) - Room
			}
		}
		var closed *CloseError
		if !errors.As(err, &closed) || closed.Code != CodeTooBig {
			t.Errorf("%s: got %v", name, err)
		}
		if got > 1<<20 {
			t.Errorf("%s: %d bytes were let through", name, got)
		}
		code, _ := ws.ParseCloseFrameData(peer.next().Payload)
		if code != CodeTooBig {
			t.Errorf("%s: the peer was told %d", name, code)
		}
	}
}

func TestNegotiate(t *testing.T) {
	const answer = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
	for offer, want := range map[string]string{
		"":                   "",
		"x-webkit-deflate":   "",
		"permessage-deflate": answer,
		"permessage-deflate; client_max_window_bits; server_no_context_takeover": answer,
		"permessage-deflate; server_max_window_bits=9":                           answer + "; server_max_window_bits=9",
		"permessage-deflate; server_max_window_bits=7, permessage-deflate":       answer,
		"permessage-deflate; server_max_window_bits":                             "",
		"permessage-deflate; unknown=1":                                          "",
		"permessage-deflate; client_max_window_bits=8; client_max_window_bits=8": "",
		"a, b; c=\"d,e\", permessage-deflate":                                    answer,
		"permessage-deflate;;;":                                                  "",
	} {
		if _, got := Negotiate([]string{offer}); got != want {
			t.Errorf("%q: got %q, want %q", offer, got, want)
		}
	}
}

// Every window makes frames that a decompressor with no more than that window can read.
func TestAppendCompressed(t *testing.T) {
	data := []byte(strings.Repeat("some text that repeats itself; ", 5000))
	for bits := 8; bits <= maxBits; bits++ {
		c := &Conn{output: output{compression: Compression{On: true, bits: bits}}}
		var b []byte
		for at := 0; at < len(data); at += 10_000 {
			b = c.Append(b, false, at+10_000 >= len(data), data[at:min(at+10_000, len(data))])
		}
		r := bytes.NewReader(b)
		var payload []byte
		for r.Len() > 0 {
			f := readFrame(t, r)
			if f.Header.Rsv1() != (payload == nil) {
				t.Fatalf("%+v", f.Header)
			}
			payload = append(payload, f.Payload...)
		}
		got, err := wsflate.DefaultHelper.Decompress(payload)
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bits: %d bytes, %v", bits, len(got), err)
		}
	}
}

// The peer's bytes never crash it, never make it let through text that is not UTF-8, and never hang it.
func FuzzNext(f *testing.F) {
	f.Add(frame(ws.OpText, true, []byte("hello")), true)
	f.Add(append(frame(ws.OpText, false, []byte("ä")[:1]), frame(ws.OpContinuation, true, []byte("ä")[1:])...), false)
	f.Add(frame(ws.OpClose, true, []byte{3, 232}), true)
	f.Add([]byte{0x82, 0xff, 0, 0, 1, 0, 0, 0, 0, 0, 1, 2, 3, 4}, false)
	f.Add([]byte{0xc1, 0x80, 0, 0, 0, 0}, true)
	f.Fuzz(func(t *testing.T, data []byte, compressed bool) {
		c := New(&script{data: data}, nil, Options{MaxSize: 1 << 16, Compression: Compression{On: compressed, bits: maxBits}})
		var message []byte
		for {
			part, err := c.Next()
			if err != nil {
				break
			}
			message = append(message, part.Frame[Room:]...)
			if len(message) > 1<<16 {
				t.Fatalf("%d bytes", len(message))
			}
			if part.End {
				if !part.Binary && !utf8.Valid(message) {
					t.Fatalf("%q", message)
				}
				message = nil
			}
		}
		c.Linger()
		c.Close()
	})
}

// script is a transport that has its input from the beginning, and gives it byte by byte.
type script struct{ data []byte }

func (s *script) Read(p []byte) (int, error) {
	if len(s.data) == 0 {
		return 0, io.EOF
	}
	p[0], s.data = s.data[0], s.data[1:]
	return 1, nil
}

func (s *script) Write(p []byte) (int, error)     { return len(p), nil }
func (s *script) Close() error                    { return nil }
func (s *script) SetReadDeadline(time.Time) error { return nil }
