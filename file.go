package caddysnake

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/mliezun/caddy-snake/internal/wire"
)

// errNoDescriptor is what is wrong with a FILE frame whose descriptor did not arrive: Caddy has too many files open, or the
// worker sent none.
var errNoDescriptor = errors.New("the descriptor of the response's file did not arrive: has Caddy reached its limit of open files?")

// filePart is a part of an open file that is a part of a response.
type filePart struct {
	file          *os.File
	offset, count int64
	shared        bool // the app may move the file's position too: only reads that say where they read are safe
}

// newFilePart checks the data of a FILE frame against its file, which must be a regular one: whatever else a worker could
// send might never end.
func newFilePart(f wire.Frame) (*filePart, error) {
	if f.File == nil {
		return nil, errNoDescriptor
	}
	if len(f.Data) != 17 {
		return nil, fmt.Errorf("a FILE frame with %d bytes of data", len(f.Data))
	}
	info, err := f.File.Stat()
	if err != nil {
		return nil, fmt.Errorf("looking at the response's file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("the response's file is not a regular file but %s", info.Mode().Type())
	}
	offset, count := binary.LittleEndian.Uint64(f.Data), binary.LittleEndian.Uint64(f.Data[8:])
	if size := uint64(info.Size()); offset > size || count > size-offset {
		return nil, fmt.Errorf("%d bytes from %d on of a response's file of %d", count, offset, size)
	}
	return &filePart{file: f.File, offset: int64(offset), count: int64(count), shared: f.Data[16] != 0}, nil
}

// section returns a reader of the part.
func (p *filePart) section() *io.SectionReader { return io.NewSectionReader(p.file, p.offset, p.count) }

// sendFile passes on a FILE frame: a part of the body, or with a head the beginning of the response.
func (e *exchange) sendFile(stream *wire.Stream, f wire.Frame) error {
	if f.File != nil {
		defer func() { _ = f.File.Close() }()
	}
	part, err := newFilePart(f)
	if err != nil {
		return &appFault{err}
	}
	if len(f.Head) > 0 {
		status, err := e.takeHead(f.Head)
		if err != nil {
			return &appFault{err}
		}
		if f.End {
			if err := e.describe(part); err != nil {
				return &appFault{err}
			}
			if e.wantsRange(status) {
				return e.serveRange(part)
			}
		}
		e.begin(status)
	}
	if err := e.copyFile(part, f.End); err != nil {
		return err
	}
	if !f.End {
		stream.Consumed(wire.FileCost)
	}
	return nil
}

// copyFile sends part as a part of the body, or as its end. What goes from file to socket, net/http does not hold against
// the response's content-length: more would be taken for the next response.
func (e *exchange) copyFile(part *filePart, end bool) error {
	if e.request.Method == http.MethodHead {
		return nil
	}
	if e.bounded && part.count > e.left {
		if !end {
			return http.ErrContentLength
		}
		part.count = e.left // the file may have grown, see describe
	}
	n, err := e.fileWriter(part).copy(part)
	if err == nil {
		err = e.count(n)
	}
	if err == nil && n < part.count {
		return &appFault{fmt.Errorf("the response's file has shrunk: %d bytes instead of %d", n, part.count)}
	}
	var unreadable *fs.PathError
	switch {
	case errors.Is(err, http.ErrBodyNotAllowed):
		return nil
	case errors.As(err, &unreadable):
		return &appFault{fmt.Errorf("reading the response's file: %w", err)}
	default:
		return err
	}
}

// describe completes the headers of a response whose whole body is part. A file may have grown since the app looked at
// its size: what the app has declared is sent.
func (e *exchange) describe(part *filePart) error {
	header := e.w.Header()
	declared := header.Get("Content-Length")
	if declared == "" {
		header.Set("Content-Length", strconv.FormatInt(part.count, 10))
		return nil
	}
	length, err := strconv.ParseInt(declared, 10, 64)
	if err != nil || length < 0 || length > part.count {
		return fmt.Errorf("content-length is %q, but the response's file has %d bytes", declared, part.count)
	}
	part.count = length
	return nil
}

// wantsRange tells whether a range of a file is asked for that the app answers as a whole (RFC 9110, section 14.2), and
// says that it may be.
func (e *exchange) wantsRange(status int) bool {
	header := e.w.Header()
	if status != http.StatusOK || e.request.Method != http.MethodGet && e.request.Method != http.MethodHead ||
		header.Get("Content-Range") != "" || strings.EqualFold(header.Get("Accept-Ranges"), "none") {
		return false
	}
	header.Set("Accept-Ranges", "bytes")
	return e.request.Method == http.MethodGet && byteRanges(e.request.Request) != ""
}

// byteRanges returns what a Range header asks for in bytes, as http.ServeContent understands it, or "" if there is none:
// other units are to be ignored, and units are compared without case (RFC 9110, section 14.1).
func byteRanges(r *http.Request) string {
	unit, ranges, _ := strings.Cut(r.Header.Get("Range"), "=")
	if !strings.EqualFold(unit, "bytes") {
		return ""
	}
	return "bytes=" + ranges
}

// serveRange answers a request for ranges as Caddy's file_server would. If-Range is held against the app's ETag and
// Last-Modified; other conditions the app has judged itself.
func (e *exchange) serveRange(part *filePart) error {
	asked := &http.Request{Method: http.MethodGet, Header: http.Header{"Range": {byteRanges(e.request.Request)}}}
	if condition := e.request.Header["If-Range"]; condition != nil {
		asked.Header["If-Range"] = condition
	}
	header := e.w.Header()
	modified, err := http.ParseTime(header.Get("Last-Modified"))
	if err != nil {
		modified = time.Time{}
	}
	header.Del("Content-Length") // of the whole
	e.prepare()
	http.ServeContent(e.fileWriter(part), asked, "", modified, part.section())
	return nil
}
