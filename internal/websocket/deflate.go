package websocket

import (
	"errors"
	"io"
	"strconv"
	"strings"
	"sync"

	"github.com/gobwas/httphead"
	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsflate"
	"github.com/klauspost/compress/flate"
)

const (
	// inflateSize is how much is decompressed at a time, in bytes.
	inflateSize = 16 << 10
	// maxBits is the window of DEFLATE, as a power of two.
	maxBits = 15
)

// Compression is what was negotiated of RFC 7692. Every message is compressed by itself, both ways: a dictionary that
// lives as long as the socket would cost hundreds of kilobytes for each.
type Compression struct {
	On   bool
	bits int // the window for what is sent, as a power of two
}

// Negotiate picks the first offer of permessage-deflate that is valid from Sec-WebSocket-Extensions headers (RFC 7692,
// section 5.1), and returns the header's value for the response; "" if there is none.
func Negotiate(offers []string) (Compression, string) {
	options, _ := httphead.ParseOptions([]byte(strings.Join(offers, ",")), nil)
	for _, option := range options {
		var offer wsflate.Parameters
		if string(option.Name) != wsflate.ExtensionName || offer.Parse(option) != nil {
			continue
		}
		answer := wsflate.ExtensionName + "; server_no_context_takeover; client_no_context_takeover"
		bits := maxBits
		if offer.ServerMaxWindowBits.Defined() {
			bits = int(offer.ServerMaxWindowBits)
			answer += "; server_max_window_bits=" + strconv.Itoa(bits)
		}
		return Compression{On: true, bits: bits}, answer
	}
	return Compression{}, ""
}

// inflater decompresses one message.
type inflater struct {
	conn   *Conn
	reader io.ReadCloser
	tail   []byte // what is still to be read behind the payload
	err    error  // why the payload cannot be read
	out    [Room + inflateSize]byte
}

var inflaters = sync.Pool{New: func() any { return &inflater{reader: flate.NewReader(nil)} }}

// deflateTail ends a message: the empty block that the sender has cut off (RFC 7692, section 7.2.1), and a last one.
var deflateTail = []byte{0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff}

// inflate returns the next part of a compressed message, and whether it is the last one. What a message inflates to is
// counted as it comes and never held whole.
func (c *Conn) inflate() (frame []byte, end bool, err error) {
	if c.inflater == nil {
		c.inflater = inflaters.Get().(*inflater)
		c.inflater.conn, c.inflater.tail, c.inflater.err = c, deflateTail, nil
		if err := c.inflater.reader.(flate.Resetter).Reset(c.inflater, nil); err != nil {
			return nil, false, err
		}
	}
	in := c.inflater
	n := Room
	for err == nil && n < len(in.out) {
		var got int
		got, err = in.reader.Read(in.out[n:])
		n += got
	}
	c.message.size += int64(n - Room)
	switch {
	case c.message.size > c.options.MaxSize:
		return nil, false, c.tooBig()
	case err == nil:
		return in.out[:n], false, nil
	case in.err != nil:
		return nil, false, in.err
	case !errors.Is(err, io.EOF):
		return nil, false, c.violation(CodeInvalid, "message that cannot be decompressed")
	}
	// A last block may come before the payload's end (RFC 7692, section 7.2.3.4).
	for !c.message.whole {
		if _, err := c.payload(chunkSize); err != nil {
			return nil, false, err
		}
		if err := c.advance(); err != nil {
			return nil, false, err
		}
	}
	return in.out[:n], true, nil
}

// dropInflater lets others have the inflater, and with it what inflate has returned.
func (c *Conn) dropInflater() {
	if c.inflater != nil {
		c.inflater.conn = nil
		inflaters.Put(c.inflater)
		c.inflater = nil
	}
}

// Read reads the message's payload and the tail.
func (in *inflater) Read(p []byte) (int, error) {
	if in.err = in.conn.advance(); in.err != nil {
		return 0, in.err
	}
	if in.conn.message.whole {
		n := copy(p, in.tail)
		in.tail = in.tail[n:]
		if n == 0 {
			return 0, io.EOF
		}
		return n, nil
	}
	var b []byte
	if b, in.err = in.conn.payload(len(p)); in.err != nil {
		return 0, in.err
	}
	return copy(p, b[Room:]), nil
}

// output makes the frames that are sent.
type output struct {
	compression Compression
	open        bool      // a message has begun
	deflater    *deflater // of that message, if it is compressed
	frames      []byte    // what appendHeader appends to
	scratch     [ws.MaxHeaderSize]byte
}

// deflater compresses one message.
type deflater struct {
	writer *wsflate.Writer
	first  bool   // no frame has been made
	made   []byte // what is compressed and not yet in a frame
}

// deflaters has one pool for each size of the window: what a deflater allocates depends on it.
var deflaters [maxBits + 1]sync.Pool

const (
	// minDeflate is the size from which a message is compressed, in bytes: a smaller one gains nothing.
	minDeflate = 128
	// deflatedFrame is the size from which what is compressed makes a frame before the message ends, in bytes.
	deflatedFrame = 16 << 10
)

// Append appends the frames of a message's next part to b: none while a part of a compressed message makes too little.
func (c *Conn) Append(b []byte, binary, end bool, data []byte) []byte {
	o := &c.output
	first := !o.open
	o.open = !end
	if first && o.compression.On && !(end && len(data) < minDeflate) {
		o.deflater = newDeflater(o.compression.bits)
		o.deflater.first = true
	}
	h := ws.Header{Fin: end, OpCode: ws.OpContinuation, Length: int64(len(data))}
	if first {
		h.OpCode = opCode(binary)
	}
	d := o.deflater
	if d == nil {
		return append(o.appendHeader(b, h), data...)
	}
	d.write(data, end)
	if !end && len(d.made) < deflatedFrame {
		return b
	}
	h.OpCode, h.Rsv = ws.OpContinuation, 0
	if d.first {
		h.OpCode, h.Rsv = opCode(binary), ws.Rsv(true, false, false)
	}
	h.Length = int64(len(d.made))
	b = append(o.appendHeader(b, h), d.made...)
	d.first, d.made = false, d.made[:0]
	if end {
		deflaters[o.compression.bits].Put(d)
		o.deflater = nil
	}
	return b
}

func opCode(binary bool) ws.OpCode {
	if binary {
		return ws.OpBinary
	}
	return ws.OpText
}

func newDeflater(bits int) *deflater {
	d, ok := deflaters[bits].Get().(*deflater)
	if !ok {
		d = new(deflater)
		d.writer = wsflate.NewWriter(d, func(w io.Writer) wsflate.Compressor {
			compressor, err := newCompressor(w, bits)
			if err != nil {
				panic(err) // only a constant of this file can be wrong
			}
			return compressor
		})
		return d
	}
	d.made = d.made[:0]
	d.writer.Reset(d)
	return d
}

func newCompressor(w io.Writer, bits int) (*flate.Writer, error) {
	if bits < maxBits {
		return flate.NewWriterWindow(w, 1<<bits)
	}
	return flate.NewWriter(w, flate.BestSpeed)
}

// write compresses data. Nothing in it fails: it writes to memory.
func (d *deflater) write(data []byte, end bool) {
	_, _ = d.writer.Write(data)
	if end {
		_ = d.writer.Flush()
	}
}

// Write collects what is compressed.
func (d *deflater) Write(p []byte) (int, error) {
	d.made = append(d.made, p...)
	return len(p), nil
}

// appendHeader appends a frame's header.
func (o *output) appendHeader(b []byte, h ws.Header) []byte {
	o.frames = b
	_ = ws.WriteHeaderBuffer(o, h, o.scratch[:]) // nothing here fails
	b, o.frames = o.frames, nil
	return b
}

// Write appends what ws makes to frames.
func (o *output) Write(p []byte) (int, error) {
	o.frames = append(o.frames, p...)
	return len(p), nil
}
