package websocket

import (
	"errors"
	"unicode/utf8"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsflate"
)

// Part is a part of a message, as far as it has come.
type Part struct {
	Binary bool   // or text
	End    bool   // the message's last part, which may be empty
	Frame  []byte // Room bytes, then the data
}

// message is what is known of the message that is being received.
type message struct {
	open       bool // its first frame has begun
	binary     bool
	compressed bool
	whole      bool  // its last frame has been taken to its end
	fin        bool  // this frame is the last one
	left       int64 // bytes of this frame's payload still to come
	mask       [4]byte
	at         int // how many bytes of this frame's payload were unmasked
	size       int64
	text       utf8Checker
}

// Next returns the next part of a message, which stays valid until the next call, and answers pings meanwhile. It waits
// without holding a buffer where the transport allows that. Every error is a *CloseError, and the last thing that Next
// returns; when the peer has closed, it has got its answer.
func (c *Conn) Next() (Part, error) {
	part, err := c.next()
	if err != nil {
		err = c.ended(err)
	}
	return part, err
}

func (c *Conn) next() (Part, error) {
	m := &c.message
	if !m.open {
		c.dropInflater() // of the message before, whose last part was valid until now
	}
	if err := c.advance(); err != nil {
		return Part{}, err
	}
	part := Part{Binary: m.binary}
	var err error
	if m.compressed {
		part.Frame, part.End, err = c.inflate()
	} else {
		part.Frame, err = c.payload(chunkSize)
		part.End = m.whole
	}
	if err != nil {
		return Part{}, err
	}
	if !m.binary && !m.text.check(part.Frame[Room:], part.End) {
		return Part{}, c.violation(CodeInvalid, "text that is not UTF-8")
	}
	if part.End {
		*m = message{}
	}
	return part, nil
}

// advance takes frame headers until a payload begins or the message is whole, and handles control frames.
func (c *Conn) advance() error {
	m := &c.message
	for m.left == 0 && !m.whole {
		h, err := c.input.header()
		if err != nil {
			return err
		}
		c.heard.Store(true)
		if err := c.check(&h); err != nil {
			m.left = h.Length // for Linger, which goes on behind it
			c.answered = h.OpCode == ws.OpClose
			return c.violation(CodeProtocol, err.Error())
		}
		if h.OpCode.IsControl() {
			if err := c.control(h); err != nil {
				return err
			}
			continue
		}
		if !m.compressed {
			// Not what comes is counted but what is announced: a frame that is too large costs nothing.
			m.size += h.Length
		}
		if m.size > c.options.MaxSize || h.Length > c.options.MaxSize {
			m.left = h.Length
			return c.tooBig()
		}
		m.left, m.mask, m.at, m.fin = h.Length, h.Mask, 0, h.Fin
		m.whole = h.Fin && h.Length == 0
	}
	return nil
}

// check holds a header against RFC 6455 and, with compression, RFC 7692. It begins the message whose first frame it is.
func (c *Conn) check(h *ws.Header) error {
	m := &c.message
	state := ws.StateServerSide
	if m.open {
		state = state.Set(ws.StateFragmented)
	}
	first := !h.OpCode.IsControl() && !m.open
	compressed := false
	if c.options.Compression.On {
		var bits wsflate.MessageState
		plain, err := bits.UnsetBits(*h)
		if err != nil {
			return err
		}
		*h, compressed = plain, bits.IsCompressed()
	}
	if err := ws.CheckHeader(*h, state); err != nil {
		return err
	}
	if first {
		m.open, m.binary, m.compressed = true, h.OpCode == ws.OpBinary, compressed
	}
	return nil
}

// payload takes what has come of the message's payload, unmasked: up to most bytes, at least one unless it is whole.
func (c *Conn) payload(most int) ([]byte, error) {
	m := &c.message
	if m.whole {
		return make([]byte, Room), nil
	}
	b, err := c.input.take(min(m.left, int64(most)))
	if err != nil {
		return nil, err
	}
	c.heard.Store(true)
	n := len(b) - Room
	ws.Cipher(b[Room:], m.mask, m.at)
	m.at += n
	m.left -= int64(n)
	m.whole = m.fin && m.left == 0
	return b, nil
}

// control handles a control frame.
func (c *Conn) control(h ws.Header) error {
	payload, err := c.input.whole(int(h.Length))
	if err != nil {
		return err
	}
	ws.Cipher(payload, h.Mask, 0)
	switch h.OpCode {
	case ws.OpPing:
		c.sendPong(payload)
	case ws.OpClose:
		return c.peerClosed(payload)
	}
	return nil
}

// maxCode is the highest code that a Close may have (RFC 6455, section 7.4.2).
const maxCode = 4999

// peerClosed answers a Close (RFC 6455, section 5.5.1).
func (c *Conn) peerClosed(payload []byte) error {
	c.answered = true
	if len(payload) == 0 {
		c.sendClose(nil)
		return &CloseError{CodeNoStatus, ""}
	}
	code, reason := ws.ParseCloseFrameData(payload)
	err := ws.CheckCloseFrameData(code, reason)
	registered := code.In(ws.StatusCodeRange{Min: 1012, Max: 1014}) // since the RFC
	if errors.Is(err, ws.ErrProtocolStatusCodeUnknown) && registered {
		err = ws.CheckCloseFrameData(ws.StatusNormalClosure, reason)
	}
	switch {
	case errors.Is(err, ws.ErrProtocolInvalidUTF8):
		return c.violation(CodeInvalid, err.Error())
	case err != nil:
		return c.violation(CodeProtocol, err.Error())
	case code > maxCode:
		return c.violation(CodeProtocol, ws.ErrProtocolStatusCodeUnknown.Error())
	}
	c.sendClose(payload[:2])
	return &CloseError{int(code), reason}
}

func (c *Conn) tooBig() error { return c.violation(CodeTooBig, "message too big") }

// utf8Checker checks text that comes in parts.
type utf8Checker struct {
	begun [utf8.UTFMax]byte // a character's bytes so far
	n     int
}

// check tells whether p goes on as UTF-8 does; end: nothing follows.
func (u *utf8Checker) check(p []byte, end bool) bool {
	for u.n > 0 && len(p) > 0 {
		u.begun[u.n] = p[0]
		u.n++
		p = p[1:]
		if utf8.FullRune(u.begun[:u.n]) {
			if !utf8.Valid(u.begun[:u.n]) {
				return false
			}
			u.n = 0
		}
	}
	whole := len(p)
	for back := 1; back < utf8.UTFMax && back <= len(p); back++ {
		if at := len(p) - back; utf8.RuneStart(p[at]) {
			if !utf8.FullRune(p[at:]) {
				whole = at
			}
			break
		}
	}
	if whole < len(p) {
		u.n = copy(u.begun[:], p[whole:])
	}
	return utf8.Valid(p[:whole]) && !(end && u.n > 0)
}
