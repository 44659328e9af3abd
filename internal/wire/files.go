package wire

import (
	"fmt"
	"io"
	"os"
)

// maxEarly is how many descriptors may have come ahead of their frames. Each is between two calls of one of the worker's
// threads, so there are few.
const maxEarly = 1024

// FileSource is where the descriptors arrive that a worker sends beside its frames. One goroutine at a time uses it.
type FileSource interface {
	// Next returns the next descriptor that has come and the stream that it is for; ok: there was one. It does not wait.
	// file is nil if the descriptor was lost on its way: Caddy may have no room for another one.
	Next() (stream uint32, file *os.File, ok bool)
	io.Closer
}

// fileTray brings each FILE frame and its descriptor together. A descriptor is sent before its frame, so it has come when
// the frame is read; those of one stream come in the order of their frames. Whoever leads owns it.
type fileTray struct {
	source FileSource            // nil: no descriptors come
	early  map[uint32][]*os.File // those whose frames have not been read
	count  int                   // how many these are
}

// take returns the descriptor of a FILE frame of stream, or nil if there is none. Those of streams that are not open can
// never be asked for and are closed.
func (t *fileTray) take(stream uint32, open func(uint32) bool) (*os.File, error) {
	if files := t.early[stream]; len(files) > 0 {
		t.keep(stream, files[1:])
		t.count--
		return files[0], nil
	}
	for t.source != nil {
		owner, file, ok := t.source.Next()
		switch {
		case !ok:
			return nil, nil
		case owner == stream:
			return file, nil
		case !open(owner):
			closeFile(file)
		case t.count == maxEarly:
			closeFile(file)
			return nil, fmt.Errorf("%w: over %d descriptors without their frames", ErrProtocol, maxEarly)
		default:
			t.keep(owner, append(t.early[owner], file))
			t.count++
		}
	}
	return nil, nil
}

// drop closes what has come for a stream that asks for no more.
func (t *fileTray) drop(stream uint32) {
	if t.count == 0 {
		return
	}
	for _, file := range t.early[stream] {
		closeFile(file)
		t.count--
	}
	delete(t.early, stream)
}

// close closes everything.
func (t *fileTray) close() {
	for stream := range t.early {
		t.drop(stream)
	}
	if t.source != nil {
		_ = t.source.Close()
	}
}

func (t *fileTray) keep(stream uint32, files []*os.File) {
	if t.early == nil {
		t.early = map[uint32][]*os.File{}
	}
	if len(files) == 0 {
		delete(t.early, stream)
	} else {
		t.early[stream] = files
	}
}

func closeFile(file *os.File) {
	if file != nil {
		_ = file.Close()
	}
}
