package wire

import (
	"bytes"
	"context"
	"errors"
	"os"
	"sync"
	"testing"
)

// tray is a FileSource whose descriptors the test puts there.
type tray struct {
	mu      sync.Mutex
	streams []uint32
	files   []*os.File
	closed  bool
}

func (t *tray) put(stream uint32, file *os.File) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.streams = append(t.streams, stream)
	t.files = append(t.files, file)
}

func (t *tray) Next() (uint32, *os.File, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.files) == 0 {
		return 0, nil, false
	}
	stream, file := t.streams[0], t.files[0]
	t.streams, t.files = t.streams[1:], t.files[1:]
	return stream, file, true
}

func (t *tray) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	return nil
}

// openFile returns an open file, and a function that tells whether it has been closed.
func openFile(t *testing.T) (file *os.File, isClosed func() bool) {
	t.Helper()
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	return file, func() bool {
		_, err := file.Stat()
		return errors.Is(err, os.ErrClosed)
	}
}

// begin begins a stream.
func begin(t *testing.T, c *Conn, worker peer) *Stream {
	t.Helper()
	s, _ := open(t, c, worker)
	return s
}

// receive returns the next frame for s.
func receive(t *testing.T, s *Stream) Frame {
	t.Helper()
	f, err := s.Recv(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func connectFiles(t *testing.T) (*Conn, peer, *tray, <-chan error) {
	t.Helper()
	ours, theirs := socketpair(t)
	t.Cleanup(func() { _ = theirs.Close() })
	files := &tray{}
	c := NewConn(ours, files, &recorder{})
	ended := make(chan error, 1)
	go func() { ended <- c.Run() }()
	t.Cleanup(c.Close)
	return c, peer{t, theirs}, files, ended
}

func TestEachFileFrameGetsItsDescriptor(t *testing.T) {
	c, worker, files, _ := connectFiles(t)
	first, second := begin(t, c, worker), begin(t, c, worker)
	a, _ := openFile(t)
	b, _ := openFile(t)
	third, _ := openFile(t)
	// Another thread's descriptor has overtaken; one was lost.
	files.put(second.id, a)
	files.put(second.id, nil)
	files.put(first.id, b)
	files.put(second.id, third)
	worker.send(Frame{Stream: first.id, Type: File, Head: []byte("h"), Data: []byte("1")})
	for _, f := range []Frame{
		{Stream: second.id, Type: Response, Head: []byte("h")},
		{Stream: second.id, Type: File, Data: []byte("2")},
		{Stream: second.id, Type: File, Data: []byte("3")},
		{Stream: second.id, Type: Data, Data: []byte("data")},
		{Stream: second.id, Type: File, Data: []byte("4"), End: true},
	} {
		worker.send(f)
	}
	f := receive(t, first)
	if f.File != b || string(f.Data) != "1" {
		t.Errorf("got %v %q", f.File, f.Data)
	}
	for i, want := range []Frame{{Type: Response}, {Data: []byte("2"), File: a}, {Data: []byte("3")}, {Data: []byte("data")}, {Data: []byte("4"), File: third}} {
		if f := receive(t, second); f.File != want.File || !bytes.Equal(f.Data, want.Data) {
			t.Errorf("frame %d: got %v %q, want %v %q", i, f.File, f.Data, want.File, want.Data)
		}
	}
}

func TestDescriptorsThatNobodyTakesAreClosed(t *testing.T) {
	c, worker, files, ended := connectFiles(t)
	reset, left, early := begin(t, c, worker), begin(t, c, worker), begin(t, c, worker)
	var closed []func() bool
	put := func(stream uint32) {
		file, isClosed := openFile(t)
		files.put(stream, file)
		closed = append(closed, isClosed)
	}
	reset.Reset()
	put(reset.id)
	worker.send(Frame{Stream: reset.id, Type: File, Head: []byte("h"), End: true})
	put(12345) // no such stream
	put(early.id)
	put(left.id)
	worker.send(Frame{Stream: left.id, Type: File, Head: []byte("h"), End: true})
	worker.send(Frame{Stream: early.id, Type: Reset})
	if f := receive(t, early); f.Type != Reset {
		t.Fatalf("got type %d", f.Type)
	}
	reset.Release()
	left.Release()
	early.Release()
	for i, isClosed := range closed {
		if !isClosed() {
			t.Errorf("descriptor %d is still open", i)
		}
	}
	_ = worker.rw.Close()
	<-ended
	if !files.closed {
		t.Error("the source was not closed")
	}
}

func TestFilesAreBoundedByCredit(t *testing.T) {
	c, worker, _, ended := connectFiles(t)
	s := begin(t, c, worker)
	worker.send(Frame{Stream: s.id, Type: Response, Head: []byte("h")})
	for range Window/FileCost + 1 {
		worker.send(Frame{Stream: s.id, Type: File})
	}
	if err := <-ended; !errors.Is(err, ErrProtocol) {
		t.Errorf("got %v", err)
	}
	s.Release()
}

func TestDescriptorsWithoutFramesAreBounded(t *testing.T) {
	c, worker, files, ended := connectFiles(t)
	s, other := begin(t, c, worker), begin(t, c, worker)
	file, isClosed := openFile(t)
	for range maxEarly + 1 {
		files.put(other.id, file)
	}
	worker.send(Frame{Stream: s.id, Type: File, Head: []byte("h")})
	if err := <-ended; !errors.Is(err, ErrProtocol) {
		t.Errorf("got %v", err)
	}
	if !isClosed() {
		t.Error("they are still open")
	}
	s.Release()
	other.Release()
}

func TestExtensionFramesOutOfOrder(t *testing.T) {
	response := Frame{Type: Response, Head: []byte("h")}
	for name, frames := range map[string][]Frame{
		"trailers before the response": {{Type: Trailers, Head: []byte("h")}},
		"file before the response":     {{Type: File, Data: []byte("x")}},
		"hint after the response":      {response, {Type: Hint, Data: []byte("x")}},
		"hint without links":           {{Type: Hint}},
		"response after a file":        {{Type: File, Head: []byte("h")}, response},
		"a type beyond":                {{Type: File + 1}},
	} {
		t.Run(name, func(t *testing.T) {
			c, worker, _, ended := connectFiles(t)
			s := begin(t, c, worker)
			for _, f := range frames {
				f.Stream = s.id
				worker.send(f)
			}
			if err := <-ended; !errors.Is(err, ErrProtocol) {
				t.Errorf("got %v", err)
			}
			s.Release()
		})
	}
}
