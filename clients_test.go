//go:build !windows

package caddysnake

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/mliezun/caddy-snake/internal/wire"
)

// Threat 13: a client that is too slow for a thread that waits for it is given up, be it inside the first part of its body,
// which no thread has, or behind it.
func TestThreat13ASlowBodyIsGivenUp(t *testing.T) {
	for name, sent := range map[string]int{"first part": 10, "rest": wire.MaxData + 10} {
		t.Run(name, func(t *testing.T) {
			var once sync.Once
			reset := make(chan struct{})
			p := testPool(t, settings{Interface: interfaceWSGI, Threads: 1}, func(f wire.Frame) ([]wire.Frame, error) {
				switch f.Type {
				case wire.Request: // the app asks for all of the body
					return []wire.Frame{{Type: wire.Credit, Data: []byte{0, 0, 4, 0}}}, nil
				case wire.Reset:
					once.Do(func() { close(reset) })
					return []wire.Frame{{Type: wire.Reset}}, nil
				}
				return nil, nil
			})
			conn, err := net.Dial("tcp", testServer(t, p).Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			head := "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 200000\r\n\r\n"
			if _, err := io.WriteString(conn, head+string(make([]byte, sent))); err != nil {
				t.Fatal(err)
			}
			lateIn := func(d time.Duration) bool {
				p.mu.Lock()
				defer p.mu.Unlock()
				for e := range p.lasting {
					if sent < wire.MaxData || p.open > 0 {
						return e.upload.isLate(time.Now().Add(d))
					}
				}
				return false
			}
			eventually(t, "the body is waited for", func() bool { return lateIn(2 * patience) })
			p.giveUpSlow(time.Now())
			if lateIn(patience / 2) {
				t.Error("the client is late already")
			}
			p.giveUpSlow(time.Now().Add(2 * patience))
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil || resp.StatusCode != http.StatusRequestTimeout {
				t.Fatalf("got %v, %v, want 408", resp, err)
			}
			if sent > wire.MaxData {
				<-reset // so the thread is free again
			}
		})
	}
}

// stuckWriter is a client that takes the head of its response and nothing more.
type stuckWriter struct {
	httptest.ResponseRecorder
	deadline chan struct{} // closed when a write deadline in the past is set
}

func (w *stuckWriter) Write([]byte) (int, error) {
	<-w.deadline
	return 0, os.ErrDeadlineExceeded
}

func (w *stuckWriter) SetWriteDeadline(time.Time) error {
	close(w.deadline)
	return nil
}

// Threat 13: a client that does not take its response is given up.
func TestThreat13ASlowReaderIsGivenUp(t *testing.T) {
	reset := make(chan struct{})
	p := testPool(t, settings{Interface: interfaceWSGI, Threads: 1}, func(f wire.Frame) ([]wire.Frame, error) {
		switch f.Type {
		case wire.Request:
			return []wire.Frame{{Type: wire.Response, Head: responseHead(200), Data: make([]byte, wire.MaxData)}}, nil
		case wire.Reset:
			close(reset)
			return []wire.Frame{{Type: wire.Reset}}, nil
		}
		return nil, nil
	})
	w := &stuckWriter{ResponseRecorder: *httptest.NewRecorder(), deadline: make(chan struct{})}
	ended := make(chan any)
	go func() {
		defer func() { ended <- recover() }()
		e := exchange{request: newRequest(newTestRequest("GET", "/", nil), rootPathAuto), w: w, pool: p, logger: zap.NewNop()}
		_ = e.run(appendEnviron)
	}()
	writing := func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		for e := range p.lasting {
			return e.writeBy.Load() != 0
		}
		return false
	}
	eventually(t, "the response is being written", writing)
	p.giveUpSlow(time.Now().Add(patience / 2))
	if !writing() {
		t.Error("the client is given up already")
	}
	p.giveUpSlow(time.Now().Add(3 * patience))
	if got := <-ended; got != http.ErrAbortHandler {
		t.Errorf("the handler ended with %v", got)
	}
	<-reset
}
