//go:build !windows

package caddysnake

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/mliezun/caddy-snake/internal/marshal"
	"github.com/mliezun/caddy-snake/internal/wire"
)

// script says what a fake worker sends when it gets f. Answers belong to f's stream. errDie ends the worker.
type script func(f wire.Frame) ([]wire.Frame, error)

var errDie = errors.New("the fake worker dies")

// answer is the script of a worker that answers each request with the same frames.
func answer(frames ...wire.Frame) script {
	return func(f wire.Frame) ([]wire.Frame, error) {
		if f.Type != wire.Request {
			return nil, nil
		}
		return frames, nil
	}
}

// fakeWorker is an interpreter without Python.
type fakeWorker struct {
	rw     net.Conn
	exited chan struct{}
	script script
	files  *descriptors // Caddy's end
	sender *os.File     // the worker's end
}

// launchFake returns a launcher of fake workers that are ready at once.
func launchFake(s script) launcher {
	return launchStarting(func(f wire.Frame) ([]wire.Frame, error) {
		if f.Type == wire.Start {
			return []wire.Frame{{Type: wire.Ready, Head: marshal.AppendDictEnd(marshal.AppendDict(nil))}}, nil
		}
		return s(f)
	})
}

// launchStarting returns a launcher of fake workers whose script begins with START.
func launchStarting(s script) launcher {
	return func(settings, int, *zap.Logger) (interpreter, wire.Socket, error) {
		ours, theirs, err := socketpair()
		if err != nil {
			return nil, nil, err
		}
		defer func() { _ = theirs.Close() }()
		rw, err := net.FileConn(theirs)
		if err != nil {
			return nil, nil, err
		}
		files, sender, err := newDescriptors()
		if err != nil {
			return nil, nil, err
		}
		w := &fakeWorker{rw: rw, exited: make(chan struct{}), script: s, files: files, sender: sender}
		go w.serve()
		return w, ours, nil
	}
}

func (w *fakeWorker) Monitor() (wire.Socket, int)   { return nil, 0 }
func (w *fakeWorker) Files() (wire.FileSource, int) { return w.files, descriptorsFD }

func (w *fakeWorker) serve() {
	defer close(w.exited)
	defer func() { _ = w.rw.Close() }()
	defer func() { _ = w.sender.Close() }()
	var out []byte
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
			answers, err := w.script(f)
			if err != nil {
				return
			}
			for _, answer := range answers {
				answer.Stream = f.Stream
				if answer.File != nil {
					stream := binary.LittleEndian.AppendUint32(nil, f.Stream)
					if unix.Sendmsg(int(w.sender.Fd()), stream, unix.UnixRights(int(answer.File.Fd())), nil, 0) != nil {
						return
					}
				}
				out, _ = wire.Append(out, answer)
			}
		}
		buf = append(buf[:0], buf[done:]...)
	}
}

func (w *fakeWorker) Exited() <-chan struct{} { return w.exited }
func (w *fakeWorker) Reason() string          { return errDie.Error() }
func (w *fakeWorker) Pid() int                { return os.Getpid() }
func (w *fakeWorker) Stopped() bool           { return false }
func (w *fakeWorker) Kill()                   { _ = w.rw.Close() }

// responseHead is the head of a RESPONSE.
func responseHead(status int64, headers ...[2]string) []byte {
	return appendHeaderList(marshal.AppendInt(marshal.AppendTuple(nil, 2), status), headers)
}

// acceptHead is the head of an ACCEPT.
func acceptHead(subprotocol string, headers ...[2]string) []byte {
	return appendHeaderList(marshal.AppendString(marshal.AppendTuple(nil, 2), subprotocol), headers)
}

func appendHeaderList(b []byte, headers [][2]string) []byte {
	b = marshal.AppendList(b, len(headers))
	for _, header := range headers {
		b = marshal.AppendBytes(marshal.AppendBytes(marshal.AppendTuple(b, 2), header[0]), header[1])
	}
	return b
}

// testPool starts a pool of fake workers.
func testPool(t testing.TB, s settings, script script) *pool {
	t.Helper()
	s.App = "main:app"
	s.Workers = max(s.Workers, 1)
	s.DrainTimeout = cmp.Or(s.DrainTimeout, 10*time.Second)
	s.QueueSize = cmp.Or(s.QueueSize, defaultQueueSize)
	p, err := newPool(context.Background(), s, launchFake(script), nil, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	return p
}

// testServer serves requests with the pool over real connections.
func testServer(t testing.TB, p *pool) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(testHandler(t, p))
	t.Cleanup(server.Close)
	return server
}

// testHandler serves requests with the pool. The client gets the status of an error and its text.
func testHandler(t testing.TB, p *pool) http.Handler {
	encode := appendEnviron
	if p.settings.Interface == interfaceASGI {
		encode = appendScope
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		vars := map[string]any{caddyhttp.ClientIPVarKey: "127.0.0.1", caddyhttp.TrustedProxyVarKey: false}
		r = r.WithContext(context.WithValue(r.Context(), caddyhttp.VarsCtxKey, vars))
		e := exchange{request: newRequest(r, rootPathAuto), w: w, pool: p, logger: zap.NewNop()}
		var handlerErr caddyhttp.HandlerError
		if err := e.run(encode); errors.As(err, &handlerErr) {
			http.Error(w, handlerErr.Err.Error(), handlerErr.StatusCode)
		} else if err != nil {
			t.Errorf("an error without a status: %v", err)
		}
	})
}

// newTestRequest makes a request as Caddy's server would pass it on.
func newTestRequest(method, target string, body io.Reader) *http.Request {
	r := httptest.NewRequest(method, target, body)
	vars := map[string]any{caddyhttp.ClientIPVarKey: "192.0.2.1", caddyhttp.TrustedProxyVarKey: false}
	return r.WithContext(context.WithValue(r.Context(), caddyhttp.VarsCtxKey, vars))
}

func BenchmarkExchange(b *testing.B) {
	head := responseHead(200, [2]string{"content-type", "text/plain"}, [2]string{"content-length", "13"})
	p := testPool(b, settings{Interface: interfaceASGI},
		answer(wire.Frame{Type: wire.Response, End: true, Head: head, Data: []byte("Hello, world!")}))
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

// get returns the status and body of a GET, and how reading the body ended.
func get(t *testing.T, url string) (status int, body string, err error) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

func TestExchangeStreamsTheResponse(t *testing.T) {
	p := testPool(t, settings{Interface: interfaceASGI}, answer(
		wire.Frame{Type: wire.Response, Head: responseHead(201, [2]string{"x-a", "1"}, [2]string{"x-a", "2"}), Data: []byte("one ")},
		wire.Frame{Type: wire.Data, Data: []byte("two ")},
		wire.Frame{Type: wire.Data, Data: []byte("three"), End: true},
	))
	resp, err := http.Get(testServer(t, p).URL)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 201 || string(body) != "one two three" {
		t.Errorf("got %d %q, %v", resp.StatusCode, body, err)
	}
	if got := resp.Header["X-A"]; len(got) != 2 || got[0] != "1" || got[1] != "2" {
		t.Errorf("got X-A %q, want both values in order", got)
	}
}

func TestExchangeAppErrors(t *testing.T) {
	failure := marshal.AppendString(marshal.AppendString(marshal.AppendTuple(nil, 2), "ValueError: boom"), "Traceback")
	begin := wire.Frame{Type: wire.Response, Head: responseHead(200), Data: []byte("begun")}
	tests := map[string]struct {
		frames    []wire.Frame
		status    int
		truncated bool
	}{
		"before the response":  {[]wire.Frame{{Type: wire.Error, Head: failure}}, 500, false},
		"after it began":       {[]wire.Frame{begin, {Type: wire.Error, Head: failure}}, 200, true},
		"no response at all":   {[]wire.Frame{{Type: wire.Error, Head: marshal.AppendString(marshal.AppendString(marshal.AppendTuple(nil, 2), ""), "")}}, 500, false},
		"newline in a header":  {[]wire.Frame{{Type: wire.Response, End: true, Head: responseHead(200, [2]string{"x-a", "1\r\nx-b: 2"})}}, 500, false},
		"space in a name":      {[]wire.Frame{{Type: wire.Response, End: true, Head: responseHead(200, [2]string{"x a", "1"})}}, 500, false},
		"empty name":           {[]wire.Frame{{Type: wire.Response, End: true, Head: responseHead(200, [2]string{"", "1"})}}, 500, false},
		"illegal status":       {[]wire.Frame{{Type: wire.Response, End: true, Head: responseHead(99)}}, 500, false},
		"informational status": {[]wire.Frame{{Type: wire.Response, End: true, Head: responseHead(101)}}, 500, false},
		"two lengths": {[]wire.Frame{{Type: wire.Response, End: true,
			Head: responseHead(200, [2]string{"content-length", "1"}, [2]string{"content-length", "2"}), Data: []byte("x")}}, 500, false},
		"longer than its length": {[]wire.Frame{{Type: wire.Response, End: true,
			Head: responseHead(200, [2]string{"content-length", "1"}), Data: []byte("xyz")}}, 200, true},
		"shorter than its length": {[]wire.Frame{{Type: wire.Response, End: true,
			Head: responseHead(200, [2]string{"content-length", "4"}), Data: []byte("xyz")}}, 200, true},
		"no marshal": {[]wire.Frame{{Type: wire.Response, End: true, Head: []byte("garbage")}}, 500, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			p := testPool(t, settings{Interface: interfaceASGI}, answer(test.frames...))
			status, body, err := get(t, testServer(t, p).URL)
			if status != test.status || (err != nil) != test.truncated {
				t.Errorf("got %d %q, %v; want %d, truncated %t", status, body, err, test.status, test.truncated)
			}
			if p.openRequests() != 0 {
				// The worker closes what was reset; a fake one that does not keeps the place, as it should.
				t.Logf("%d places are still taken", p.openRequests())
			}
		})
	}
}

func TestExchangeTakesBackTheHeadersOfAResponseThatCannotBePassedOn(t *testing.T) {
	head := responseHead(200, [2]string{"content-length", "5"}, [2]string{"x-given", "by the app"},
		[2]string{"set-cookie", "a=b"}, [2]string{"server", "app"}, [2]string{"x-bad", "\x01"})
	for name, frame := range map[string]wire.Frame{
		"header":     {Type: wire.Response, End: true, Head: head, Data: []byte("hello")},
		"early hint": {Type: wire.Hint, Data: []byte("</style.css>\x01")},
		"file":       {Type: wire.File, End: true, Head: responseHead(200)},
		"accept":     {Type: wire.Accept, Head: acceptHead("\x01", [2]string{"set-cookie", "a=b"})},
	} {
		p := testPool(t, settings{Interface: interfaceASGI}, func(f wire.Frame) ([]wire.Frame, error) {
			if f.Type == wire.Reset {
				return []wire.Frame{{Type: wire.Reset}}, nil
			}
			return answer(frame)(f)
		})
		for _, given := range []http.Header{{}, {"Server": {"Caddy"}}, {"Server": {"other"}, "X-Given": {"before"}}, {"X-Given": {"before"}}} {
			w := httptest.NewRecorder()
			maps.Copy(w.Header(), given)
			e := &exchange{request: newRequest(requestTo("/"), rootPathAuto), w: w, pool: p, logger: zap.NewNop()}
			var failed caddyhttp.HandlerError
			if err := e.run(appendScope); !errors.As(err, &failed) || failed.StatusCode != http.StatusInternalServerError {
				t.Errorf("%s: got %v, want a 500", name, err)
			}
			if got := w.Header(); !reflect.DeepEqual(got, given) {
				t.Errorf("%s: the headers are %v, want %v", name, got, given)
			}
		}
	}
}

func TestExchangeDeclinedRequestGoesOn(t *testing.T) {
	var asked atomic.Int32
	p := testPool(t, settings{Interface: interfaceWSGI, Threads: 1}, func(f wire.Frame) ([]wire.Frame, error) {
		switch {
		case f.Type != wire.Request:
			return nil, nil
		case asked.Add(1) < 3:
			return []wire.Frame{{Type: wire.Decline}}, nil
		default:
			return []wire.Frame{{Type: wire.Response, End: true, Head: responseHead(200), Data: f.Data}}, nil
		}
	})
	resp, err := http.Post(testServer(t, p).URL, "text/plain", strings.NewReader("the body"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 || string(body) != "the body" {
		t.Errorf("got %d %q, %v", resp.StatusCode, body, err)
	}
	if asked.Load() != 3 {
		t.Errorf("the request was sent %d times, want 3", asked.Load())
	}
}

// A body that is still coming when the pool begins to drain, and fits into one frame, is not refused in between.
func TestExchangeWithASmallBodyWhileThePoolDrains(t *testing.T) {
	p := testPool(t, settings{Interface: interfaceWSGI, Threads: 1}, answer(
		wire.Frame{Type: wire.Response, End: true, Head: responseHead(200), Data: []byte("served")}))
	body, client := io.Pipe()
	request := newTestRequest(http.MethodPost, "http://test/", body)
	request.ContentLength = 10
	response := httptest.NewRecorder()
	served := make(chan struct{})
	go func() {
		defer close(served)
		testHandler(t, p).ServeHTTP(response, request)
	}()
	_, _ = client.Write([]byte("begun"))
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		p.stop(0)
	}()
	for ending := false; !ending; time.Sleep(time.Millisecond) {
		p.mu.Lock()
		ending = p.ending
		p.mu.Unlock()
	}
	_, _ = client.Write([]byte("ended"))
	_ = client.Close()
	<-served
	if response.Code != 200 || response.Body.String() != "served" {
		t.Errorf("got %d %q, want 200", response.Code, response.Body)
	}
	<-stopped
}

// A request that its worker declines while the pool drains is on no worker for a moment, and all the same the pool's.
func TestExchangeDeclinedWhileThePoolDrainsGoesOn(t *testing.T) {
	var asked atomic.Int32
	begun, ending := make(chan struct{}), make(chan struct{})
	p := testPool(t, settings{Interface: interfaceWSGI, Threads: 1}, func(f wire.Frame) ([]wire.Frame, error) {
		switch {
		case f.Type != wire.Request:
			return nil, nil
		case asked.Add(1) == 1:
			close(begun)
			<-ending
			return []wire.Frame{{Type: wire.Decline}}, nil
		default:
			return []wire.Frame{{Type: wire.Response, End: true, Head: responseHead(200), Data: []byte("served")}}, nil
		}
	})
	response, served := httptest.NewRecorder(), make(chan struct{})
	go func() {
		defer close(served)
		testHandler(t, p).ServeHTTP(response, newTestRequest(http.MethodGet, "http://test/", nil))
	}()
	<-begun
	p.expectNoMore()
	close(ending)
	<-served
	if response.Code != 200 || response.Body.String() != "served" {
		t.Errorf("got %d %q, want 200", response.Code, response.Body)
	}
	<-p.drained
}

// busyWriter notes whether a pool is busy while something is written.
type busyWriter struct {
	*httptest.ResponseRecorder
	pool *pool
	busy bool
}

func (w *busyWriter) Write(b []byte) (int, error) {
	w.busy = w.pool.isBusy()
	return w.ResponseRecorder.Write(b)
}

// What a client may not take at once is known to the drain, although it is one frame and its worker is through with it.
func TestExchangeCountsAsBusyWhileItsClientMayBlock(t *testing.T) {
	for size, busy := range map[int]bool{responseBuffer: false, responseBuffer + 1: true, wire.MaxData: true} {
		p := testPool(t, settings{Interface: interfaceASGI}, answer(
			wire.Frame{Type: wire.Response, End: true, Head: responseHead(200), Data: make([]byte, size)}))
		w := &busyWriter{ResponseRecorder: httptest.NewRecorder(), pool: p}
		testHandler(t, p).ServeHTTP(w, newTestRequest(http.MethodGet, "http://test/", nil))
		if w.busy != busy || w.Body.Len() != size {
			t.Errorf("%d of %d bytes: busy is %t, want %t", w.Body.Len(), size, w.busy, busy)
		}
		if p.isBusy() {
			t.Error("busy after the response")
		}
	}
}

func TestExchangeReplaysOnceWhatHarmsNobody(t *testing.T) {
	tests := []struct {
		method, body string
		deaths       int32
		status       int
		asked        int32
	}{
		{"GET", "", 1, 200, 2},
		{"GET", "", 2, 502, 2},
		{"DELETE", "", 1, 200, 2},
		{"POST", "", 1, 502, 1},
		{"PUT", "body", 1, 502, 1},
	}
	for _, test := range tests {
		t.Run(fmt.Sprintf("%s %s %d deaths", test.method, test.body, test.deaths), func(t *testing.T) {
			var asked atomic.Int32
			p := testPool(t, settings{Interface: interfaceASGI}, func(f wire.Frame) ([]wire.Frame, error) {
				switch {
				case f.Type != wire.Request:
					return nil, nil
				case asked.Add(1) <= test.deaths:
					return nil, errDie
				default:
					return []wire.Frame{{Type: wire.Response, End: true, Head: responseHead(200)}}, nil
				}
			})
			request, err := http.NewRequest(test.method, testServer(t, p).URL, strings.NewReader(test.body))
			if err != nil {
				t.Fatal(err)
			}
			resp, err := http.DefaultClient.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != test.status || asked.Load() != test.asked {
				t.Errorf("got %d after %d tries, want %d after %d", resp.StatusCode, asked.Load(), test.status, test.asked)
			}
		})
	}
}

// echoBody is the script of a worker that asks for the whole body and answers with its size.
func echoBody() script {
	sizes := map[uint32]int{}
	return func(f wire.Frame) ([]wire.Frame, error) {
		switch f.Type {
		case wire.Request, wire.Data:
			sizes[f.Stream] += len(f.Data)
			if f.End {
				return []wire.Frame{{Type: wire.Response, End: true, Head: responseHead(200), Data: fmt.Append(nil, sizes[f.Stream])}}, nil
			}
			credit := uint32(len(f.Data))
			if f.Type == wire.Request {
				credit = wire.Window
			}
			if credit == 0 {
				return nil, nil
			}
			return []wire.Frame{{Type: wire.Credit, Data: binary.LittleEndian.AppendUint32(nil, credit)}}, nil
		case wire.Reset:
			return []wire.Frame{{Type: wire.Reset}}, nil
		default:
			return nil, nil
		}
	}
}

func TestExchangeUploads(t *testing.T) {
	for _, s := range []settings{{Interface: interfaceWSGI, Threads: 1}, {Interface: interfaceASGI}} {
		server := testServer(t, testPool(t, s, echoBody()))
		for _, size := range []int{1, 1000, wire.MaxData - 1, wire.MaxData, wire.MaxData + 1, wire.Window + 1, 5 << 20} {
			for _, chunked := range []bool{false, true} {
				var body io.Reader = bytes.NewReader(make([]byte, size))
				if chunked {
					body = io.MultiReader(body) // hides the size
				}
				resp, err := http.Post(server.URL, "application/octet-stream", body)
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if err != nil || string(got) != fmt.Sprint(size) {
					t.Errorf("%s, %d bytes, chunked %t: got %d %q, %v", s.Interface, size, chunked, resp.StatusCode, got, err)
				}
			}
		}
	}
}

// A response that overtakes its request's body reaches the client, and what is left of the body never becomes a request.
func TestExchangeResponseOvertakesTheBody(t *testing.T) {
	streamed := []wire.Frame{
		{Type: wire.Response, Head: responseHead(200), Data: []byte("ear")},
		{Type: wire.Data, Data: []byte("ly"), End: true},
	}
	whole := []wire.Frame{{Type: wire.Response, End: true, Head: responseHead(200), Data: []byte("early")}}
	credit := wire.Frame{Type: wire.Credit, Data: binary.LittleEndian.AppendUint32(nil, wire.Window)}
	for name, frames := range map[string][]wire.Frame{
		"unread, whole":     whole,
		"unread, streamed":  streamed,
		"reading, whole":    append([]wire.Frame{credit}, whole...),
		"reading, streamed": append([]wire.Frame{credit}, streamed...),
	} {
		for _, encoding := range []string{"Content-Length: 40\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n28\r\n"} {
			t.Run(name+" "+encoding[:1], func(t *testing.T) {
				var asked atomic.Int32
				respond := answer(frames...)
				server := testServer(t, testPool(t, settings{Interface: interfaceASGI}, func(f wire.Frame) ([]wire.Frame, error) {
					if f.Type == wire.Request {
						asked.Add(1)
					}
					return respond(f)
				}))
				conn, err := net.Dial("tcp", server.Listener.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = conn.Close() }()
				if _, err := fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: a\r\n%sx", encoding); err != nil {
					t.Fatal(err)
				}
				resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(resp.Body)
				if err != nil || string(body) != "early" {
					t.Errorf("got %q, %v", body, err)
				}
				// The rest of the body looks like a request.
				_, _ = conn.Write([]byte("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n    "))
				_ = conn.(*net.TCPConn).CloseWrite()
				_, _ = io.Copy(io.Discard, conn)
				if asked.Load() != 1 {
					t.Errorf("the app saw %d requests, want 1", asked.Load())
				}
			})
		}
	}
}

func TestExchangeTellsTheWorkerThatTheClientHasGone(t *testing.T) {
	begun, reset := make(chan struct{}), make(chan struct{})
	p := testPool(t, settings{Interface: interfaceASGI}, func(f wire.Frame) ([]wire.Frame, error) {
		switch f.Type {
		case wire.Request:
			close(begun)
		case wire.Reset:
			close(reset)
			return []wire.Frame{{Type: wire.Reset}}, nil
		}
		return nil, nil
	})
	server := testServer(t, p)
	ctx, cancel := context.WithCancel(context.Background())
	request, err := http.NewRequestWithContext(ctx, "GET", server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		<-begun
		cancel()
	}()
	if resp, err := http.DefaultClient.Do(request); err == nil {
		_ = resp.Body.Close()
		t.Fatal("the request was answered")
	}
	<-reset
}
