package caddysnake

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/mliezun/caddy-snake/internal/marshal"
	"github.com/mliezun/caddy-snake/internal/wire"
)

// fakeWorker is an interpreter without Python: respond says what it sends for each REQUEST.
type fakeWorker struct {
	rw      net.Conn
	exited  chan struct{}
	respond func(request wire.Frame) []wire.Frame
}

// launchFake returns a launcher of fake workers.
func launchFake(respond func(request wire.Frame) []wire.Frame) launcher {
	return func(settings, int, *zap.Logger) (interpreter, net.Conn, error) {
		ours, theirs, err := socketpair()
		if err != nil {
			return nil, nil, err
		}
		defer func() { _ = theirs.Close() }()
		rw, err := net.FileConn(theirs)
		if err != nil {
			return nil, nil, err
		}
		w := &fakeWorker{rw: rw, exited: make(chan struct{}), respond: respond}
		go w.serve()
		return w, ours, nil
	}
}

func (w *fakeWorker) serve() {
	defer close(w.exited)
	defer func() { _ = w.rw.Close() }()
	out, _ := wire.Append(nil, wire.Frame{Type: wire.Ready, Head: marshal.AppendDictEnd(marshal.AppendDict(nil))})
	buf := make([]byte, 0, 1<<20)
	for {
		if _, err := w.rw.Write(out); err != nil {
			return
		}
		out = out[:0]
		n, err := w.rw.Read(buf[len(buf):cap(buf)])
		if err != nil {
			return
		}
		buf = buf[:len(buf)+n]
		done := 0
		for {
			f, size, _, err := wire.Parse(buf[done:])
			if err != nil || f.Type == wire.Stop {
				return
			}
			if size == 0 {
				break
			}
			done += size
			if f.Type != wire.Request {
				continue
			}
			for _, answer := range w.respond(f) {
				answer.Stream = f.Stream
				out, _ = wire.Append(out, answer)
			}
		}
		buf = append(buf[:0], buf[done:]...)
	}
}

func (w *fakeWorker) Exited() <-chan struct{} { return w.exited }
func (w *fakeWorker) Reason() string          { return "the test is over" }
func (w *fakeWorker) Kill()                   { _ = w.rw.Close() }

// responseHead is the head of a RESPONSE.
func responseHead(status int64, headers ...[2]string) []byte {
	b := marshal.AppendInt(marshal.AppendTuple(nil, 2), status)
	b = marshal.AppendList(b, len(headers))
	for _, header := range headers {
		b = marshal.AppendBytes(marshal.AppendBytes(marshal.AppendTuple(b, 2), header[0]), header[1])
	}
	return b
}

// testPool starts a pool of fake workers.
func testPool(t testing.TB, s settings, respond func(wire.Frame) []wire.Frame) *pool {
	t.Helper()
	p, err := newPool(s, launchFake(respond), zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	return p
}

// newTestRequest makes a request as Caddy's server would pass it on.
func newTestRequest(method, target string, body io.Reader) *http.Request {
	r := httptest.NewRequest(method, target, body)
	vars := map[string]any{caddyhttp.ClientIPVarKey: "192.0.2.1", caddyhttp.TrustedProxyVarKey: false}
	return r.WithContext(context.WithValue(r.Context(), caddyhttp.VarsCtxKey, vars))
}

func BenchmarkExchange(b *testing.B) {
	head := responseHead(200, [2]string{"content-type", "text/plain"}, [2]string{"content-length", "13"})
	p := testPool(b, settings{Interface: interfaceASGI, App: "main:app", Workers: 1}, func(wire.Frame) []wire.Frame {
		return []wire.Frame{{Type: wire.Response, End: true, Head: head, Data: []byte("Hello, world!")}}
	})
	b.ReportAllocs()
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		r := newTestRequest("GET", "/hello", nil)
		r.Header.Set("User-Agent", "benchmark")
		r.Header.Set("Accept", "*/*")
		w := httptest.NewRecorder()
		for pb.Next() {
			clear(w.Header())
			w.Body.Reset()
			e := exchange{request: newRequest(r, rootPathAuto), w: w, pool: p, logger: zap.NewNop()}
			if err := e.run(appendScope); err != nil {
				b.Fatal(err)
			}
		}
	})
}
