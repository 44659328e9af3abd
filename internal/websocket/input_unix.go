//go:build unix

package websocket

import (
	"io"
	"syscall"
)

// canTryRead says that tryRead works here.
const canTryRead = true

// tryRead reads what is there into a buffer that is taken for it; false: nothing is, and no buffer is held.
func (in *input) tryRead(fd uintptr) bool {
	in.hold()
	for {
		in.n, in.err = syscall.Read(int(fd), in.buf[in.to:])
		switch {
		case in.err == syscall.EINTR:
			continue
		case in.err == syscall.EAGAIN:
			in.release()
			return false
		case in.n == 0:
			in.err = io.EOF
		}
		return true
	}
}
