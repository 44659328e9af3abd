package caddysnake

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/mliezun/caddy-snake/internal/marshal"
	"github.com/mliezun/caddy-snake/internal/wire"
)

const (
	// answerTime is how long a worker may take to say where a request is. Its monitor has a thread of its own: one that
	// does not answer is stopped, or in C code that does not let go of the interpreter.
	answerTime = 3 * time.Second
	// maxAnswer is more than any answer's size, in bytes.
	maxAnswer = 1 << 20
)

// errNoAnswer is what a monitor fails with when it has not answered in time. It is of no use any more then.
var errNoAnswer = errors.New("the worker does not answer")

// errStopped is why no answer is to be waited for.
var errStopped = fmt.Errorf("%w: a signal has stopped it", errNoAnswer)

// monitor is Caddy's end of the socket on which a worker is asked about requests that have run for too long. A thread that
// does nothing else answers there (python/caddysnake/monitor.py), so that a worker whose event loop is blocked does too.
// The worker's watch alone uses it.
type monitor struct {
	socket wire.Socket
}

// verdict is a monitor's answer.
type verdict struct {
	ended bool   // the request has been told to end; false: its event loop is blocked
	stack string // where it is, or what blocks the loop; "" if it has just ended
}

// end asks the worker to end a request and to say where it was.
func (m monitor) end(stream uint32) (verdict, error) {
	if _, err := m.socket.Write(binary.LittleEndian.AppendUint32(nil, stream)); err != nil {
		return verdict{}, fmt.Errorf("%w: %w", errNoAnswer, err)
	}
	_ = m.socket.SetReadDeadline(time.Now().Add(answerTime))
	var size [4]byte
	if _, err := io.ReadFull(m.socket, size[:]); err != nil {
		return verdict{}, fmt.Errorf("%w: %w", errNoAnswer, err)
	}
	n := binary.LittleEndian.Uint32(size[:])
	if n > maxAnswer {
		return verdict{}, fmt.Errorf("%w: an answer of %d bytes", errNoAnswer, n)
	}
	answer := make([]byte, n)
	if _, err := io.ReadFull(m.socket, answer); err != nil {
		return verdict{}, fmt.Errorf("%w: %w", errNoAnswer, err)
	}
	r := marshal.NewReader(answer)
	if parts := r.Sequence(); parts != 2 && r.Err() == nil {
		return verdict{}, fmt.Errorf("%w: an answer of %d parts", errNoAnswer, parts)
	}
	ended := r.Int() != 0
	stack, _ := r.Text()
	if err := r.End(); err != nil {
		return verdict{}, fmt.Errorf("%w: %w", errNoAnswer, err)
	}
	return verdict{ended, string(stack)}, nil
}
