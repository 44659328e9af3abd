package caddysnake

import (
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"syscall"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/mliezun/caddy-snake/internal/wire"
)

// fileWriter writes files to a client, by sendfile where that can be.
//
// net/http uses sendfile when it reads from a file, or from an io.LimitedReader around one, into a plain HTTP/1 connection
// whose response is not chunked. Caddy wraps such a reader once more, so that each write has its own deadline.
type fileWriter struct {
	http.ResponseWriter
	sendfile bool
	chunk    int64 // how much Caddy has net/http read at once; 0: all
}

// fileBuffers are for files that have to be read.
var fileBuffers = sync.Pool{New: func() any { return new([wire.MaxData]byte) }}

// fileWriter is for the response that part belongs to.
func (e *exchange) fileWriter(part *filePart) *fileWriter {
	w := &fileWriter{ResponseWriter: e.w}
	w.sendfile = !part.shared && e.request.TLS == nil && e.request.ProtoMajor == 1
	if _, idle := caddyhttp.IdleTimeoutsFromContext(e.request.Context()); idle != nil {
		w.chunk = caddyhttp.DefaultMaxWriteChunk
		if idle.MaxChunk > 0 {
			w.chunk = int64(idle.MaxChunk)
		}
	}
	return w
}

// ReadFrom implements io.ReaderFrom for http.ServeContent, which copies a part of a section.
func (w *fileWriter) ReadFrom(r io.Reader) (int64, error) {
	if limited, ok := r.(*io.LimitedReader); ok {
		if section, ok := limited.R.(*io.SectionReader); ok {
			outer, offset, _ := section.Outer()
			at, err := section.Seek(0, io.SeekCurrent)
			if file, ok := outer.(*os.File); ok && err == nil {
				return w.copy(&filePart{file: file, offset: offset + at, count: limited.N})
			}
		}
	}
	return w.read(r)
}

// copy sends a part of a file.
func (w *fileWriter) copy(part *filePart) (int64, error) {
	to, ok := w.ResponseWriter.(io.ReaderFrom)
	if !ok || !w.sendfile || w.Header().Get("Content-Length") == "" {
		return w.read(part.section())
	}
	if _, err := part.file.Seek(part.offset, io.SeekStart); err != nil {
		return 0, err
	}
	if w.chunk == 0 {
		return to.ReadFrom(io.LimitReader(part.file, part.count))
	}
	return to.ReadFrom(&chunkedFile{file: part.file, end: part.offset + part.count, chunk: w.chunk})
}

// read copies without sendfile.
func (w *fileWriter) read(r io.Reader) (int64, error) {
	buffer := fileBuffers.Get().(*[wire.MaxData]byte)
	defer fileBuffers.Put(buffer)
	return io.CopyBuffer(struct{ io.Writer }{w.ResponseWriter}, struct{ io.Reader }{r}, buffer[:])
}

// chunkedFile is a part of a file, from its position on. Whoever copies it takes up to a chunk at once by sendfile, which
// knows nothing of the part's end; so the last chunk has to be read.
type chunkedFile struct {
	file       *os.File
	end, chunk int64
}

// left is how much is left of the part.
func (f *chunkedFile) left() (int64, error) {
	at, err := f.file.Seek(0, io.SeekCurrent)
	return f.end - at, err
}

// Read implements io.Reader.
func (f *chunkedFile) Read(b []byte) (int, error) {
	left, err := f.left()
	if err != nil {
		return 0, err
	}
	if left <= 0 {
		return 0, io.EOF
	}
	return f.file.Read(b[:min(int64(len(b)), left)])
}

// SyscallConn implements syscall.Conn, by which package net knows a file.
func (f *chunkedFile) SyscallConn() (syscall.RawConn, error) {
	if left, err := f.left(); err != nil || left < f.chunk {
		return nil, errors.ErrUnsupported
	}
	return f.file.SyscallConn()
}
