package caddysnake

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/mliezun/caddy-snake/internal/wire"
)

// statusClientClosed is what Caddy logs for a request whose client went away.
const statusClientClosed = 499

// responseBuffer is how much of a response net/http takes at once, whether the client reads or not, in bytes.
const responseBuffer = 4 << 10

// appFault is a response of the app's that cannot be passed on.
type appFault struct{ error }

var (
	errDeclined   = errors.New("the worker had no thread for the request")
	errWorkerGone = errors.New("the worker ended before it answered")
	errIncomplete = errors.New("the app returned without a complete response")
)

// exchange is one request and its response.
type exchange struct {
	request request
	w       http.ResponseWriter
	pool    *pool
	logger  *zap.Logger
	upload  *upload     // nil when the request has no body, or all of it is in the first frame
	empty   bool        // what might have been a body (HTTP/3 does not always say) was none
	began   bool        // the response has begun
	taken   bool        // the app's headers are there, see takeHead
	given   http.Header // the headers before they came; nil: none but these of Server
	server  []string
	bounded bool         // the response has a content-length
	left    int64        // how much of that is to come, in bytes
	lasting bool         // it is enrolled in the pool
	writeBy atomic.Int64 // when the client must have taken what is being written, in Unix nanoseconds; 0 while nothing is

	pauses int   // how often the response has paused
	push   *push // nil: it is not pushed

	webSockets *webSocketSettings // nil unless the request is a WebSocket's handshake
}

// frames recycles the buffers of REQUEST frames.
var frames = sync.Pool{New: func() any { b := make([]byte, 0, 4<<10); return &b }}

// encoder appends the head of a REQUEST: what the worker makes an environ or a scope from.
type encoder func(b []byte, req *request) []byte

var encoders = map[string]encoder{
	interfaceWSGI: appendEnviron,
	interfaceASGI: appendScope,
	interfaceESGI: appendESGIScope,
}

// webSocketEncoders append the scope of a WebSocket's handshake.
var webSocketEncoders = map[string]encoder{
	interfaceASGI: appendWebSocketScope,
	interfaceESGI: appendESGIWebSocketScope,
}

// run sends the request to a worker and relays the response. A request that the worker declined goes to another; one
// whose worker died is replayed once if nobody can notice.
func (e *exchange) run(encode encoder) error {
	ctx := e.request.Context()
	buffer := frames.Get().(*[]byte)
	defer func() {
		if cap(*buffer) <= 2*wire.MaxData {
			frames.Put(buffer)
		}
	}()
	frame := encode(wire.AppendHeader((*buffer)[:0]), &e.request)
	head := len(frame) - wire.HeaderSize
	defer e.dismiss()
	var whole bool
	if e.webSockets == nil {
		var err error
		if frame, whole, err = e.beginUpload(frame); err != nil {
			return err
		}
	}
	*buffer = frame
	defer e.endUpload()
	if err := wire.PutHeader(frame, wire.Request, whole, head); err != nil {
		return caddyhttp.Error(http.StatusRequestHeaderFieldsTooLarge, err)
	}

	var note any // Open may wait longer than a request may take
	if e.pool.settings.RequestTimeout > 0 {
		note = &timed{e, e.request.Method, requestURI(e.request.Request)}
	}
	for replayed := false; ; {
		w, err := e.pool.acquire(ctx)
		if err != nil {
			return e.refusal(err)
		}
		stream, err := w.conn.Open(frame, note)
		if err != nil { // the worker has just gone and will not be picked again
			e.pool.release(w, false)
			continue
		}
		err = e.serve(ctx, w, stream)
		switch {
		case errors.Is(err, errDeclined):
		case errors.Is(err, errAccepted):
			return nil
		case errors.Is(err, wire.ErrClosed) && !e.began:
			if replayed || !e.replayable() {
				return caddyhttp.Error(http.StatusBadGateway, fmt.Errorf("%w: %w", errWorkerGone, err))
			}
			replayed = true
		default:
			if err == nil {
				e.linger()
			}
			return err
		}
	}
}

// serve runs the exchange on one stream.
func (e *exchange) serve(ctx context.Context, w *worker, stream *wire.Stream) error {
	if e.upload != nil {
		e.upload.start(ctx, stream)
	}
	err := e.relay(ctx, w, stream)
	if errors.Is(err, errAccepted) {
		return err
	}
	declined := errors.Is(err, errDeclined)
	if err != nil && !declined {
		stream.Reset()
	}
	if e.upload != nil {
		if declined {
			e.upload.wait() // another stream gets the body
		} else {
			e.upload.stop()
		}
	}
	stream.Release()
	if err != nil && e.began {
		// Only a cut connection tells the client that the response is not whole.
		_ = http.NewResponseController(e.w).Flush()
		panic(http.ErrAbortHandler)
	}
	return err
}

// relay passes the response on as it comes.
func (e *exchange) relay(ctx context.Context, w *worker, stream *wire.Stream) error {
	for {
		f, err := stream.Recv(ctx)
		if err != nil {
			return e.broken(ctx, w, err)
		}
		switch f.Type {
		case wire.Response, wire.Data:
			if !f.End || len(f.Data) > responseBuffer { // it may have to wait for the client
				e.enrol()
			}
			err = e.write(stream, f)
		case wire.File:
			e.enrol()
			err = e.sendFile(stream, f)
		case wire.Trailers:
			return e.fault(w, e.trail(f))
		case wire.Hint:
			e.enrol()
			err = e.hint(stream, f)
		case wire.Decline:
			e.enrol() // or a pool that drains would end between two places
			return errDeclined
		case wire.Error:
			return e.appError(w, f)
		case wire.Accept:
			return e.accept(w, stream, f)
		case wire.Close:
			return caddyhttp.Error(http.StatusForbidden, errRejected)
		default:
			return caddyhttp.Error(http.StatusBadGateway, errIncomplete)
		}
		if err != nil {
			return e.fault(w, err)
		}
		if f.End {
			return e.fault(w, e.checkWhole())
		}
		if e.began && !stream.More() {
			if err := e.pause(ctx, stream, len(f.Data)); err != nil {
				return e.fault(w, err)
			}
		}
	}
}

// pause is called when the response will go on later; size is how much has come last, in bytes.
func (e *exchange) pause(ctx context.Context, stream *wire.Stream, size int) error {
	if err := http.NewResponseController(e.w).Flush(); err != nil {
		return err
	}
	if e.pauses++; e.pauses == pushAfter {
		e.push = e.newPush(stream)
	}
	if e.push != nil && size <= pushSize {
		return e.push.wait(ctx.Done())
	}
	return nil
}

// fault reports what is wrong with the app's response; if that is nothing, the client has gone.
func (e *exchange) fault(w *worker, err error) error {
	var fault *appFault
	switch {
	case err == nil:
		return nil
	case errors.As(err, &fault):
		e.logAppError(w, err.Error(), "")
		if !e.began {
			e.takeBackHead()
		}
		return caddyhttp.Error(http.StatusInternalServerError, err)
	case errors.Is(err, http.ErrContentLength):
		e.logAppError(w, "the response is longer than its content-length", "")
	}
	return caddyhttp.Error(statusClientClosed, err)
}

// prepare is called when nothing can keep the response from beginning any more.
func (e *exchange) prepare() {
	header := e.w.Header()
	if _, typed := header["Content-Type"]; !typed {
		header["Content-Type"] = nil // or net/http would guess one, and a browser might run what only was to be shown
	}
	if e.upload != nil {
		e.upload.beforeResponse(header)
	}
	e.began = true
}

// takeHead puts the app's headers beside those that other handlers have set, and returns the status. Until the response
// begins, takeBackHead can undo that.
func (e *exchange) takeHead(head []byte) (status int, err error) {
	return setHeaders(e.keepHead(), head)
}

// keepHead remembers the headers that other handlers have set, for takeBackHead, and returns them for the app's to be added.
func (e *exchange) keepHead() http.Header {
	header := e.w.Header()
	e.taken, e.given, e.server = true, nil, header["Server"]
	if len(header) > 1 || len(header) == 1 && e.server == nil { // most often it is not worth a copy
		e.given = maps.Clone(header)
		delete(header, "Content-Length") // of a response that this one takes the place of, see Caddy's intercept
	}
	return header
}

// takeBackHead removes what the app has set: what follows is not its response.
func (e *exchange) takeBackHead() {
	if !e.taken {
		return
	}
	e.taken = false
	header := e.w.Header()
	clear(header)
	maps.Copy(header, e.given)
	if e.server != nil {
		header["Server"] = e.server
	}
}

// begin sends the status and headers.
func (e *exchange) begin(status int) {
	e.prepare()
	if declared := e.w.Header()["Content-Length"]; len(declared) == 1 && e.hasContent(status) {
		length, err := strconv.ParseInt(declared[0], 10, 64)
		e.bounded, e.left = err == nil, length
	}
	e.w.WriteHeader(status)
}

// hasContent tells whether a response of this status has content (RFC 9110, section 6.4.1).
func (e *exchange) hasContent(status int) bool {
	return e.request.Method != http.MethodHead && status != http.StatusNoContent && status != http.StatusNotModified
}

// count notes that n bytes of the body are about to be sent, or have been.
func (e *exchange) count(n int64) error {
	if e.left -= n; e.bounded && e.left < 0 {
		return http.ErrContentLength
	}
	return nil
}

// checkWhole is called at the response's end. HTTP/2 would tell nobody that some of it is missing.
func (e *exchange) checkWhole() error {
	if e.bounded && e.left > 0 {
		return &appFault{fmt.Errorf("the response is %d bytes shorter than its content-length", e.left)}
	}
	return nil
}

// write passes on a RESPONSE or DATA frame.
func (e *exchange) write(stream *wire.Stream, f wire.Frame) error {
	if f.Type == wire.Response {
		status, err := e.takeHead(f.Head)
		if err != nil {
			return &appFault{err}
		}
		e.begin(status)
	}
	if len(f.Data) == 0 {
		return nil
	}
	if err := e.count(int64(len(f.Data))); err != nil {
		return err
	}
	if e.lasting {
		e.writeBy.Store(time.Now().Add(allowed(len(f.Data))).UnixNano())
		defer e.writeBy.Store(0)
	}
	return passBody(e.w, stream, f.Data)
}

// hint passes on a HINT frame: an informational response with links (RFC 8297). HTTP/1.0 has none.
//
// None goes to a client of HTTP/1 that waits for a 100: net/http writes that from where the body is read, and guards it
// against the final response alone.
func (e *exchange) hint(stream *wire.Stream, f wire.Frame) error {
	continues := e.request.ProtoMajor == 1 && e.upload != nil && e.request.Header.Get("Expect") != ""
	if e.request.ProtoAtLeast(1, 1) && !continues {
		links, err := hintLinks(f.Data)
		if err != nil {
			return &appFault{err}
		}
		// Not with the headers that other handlers have prepared for the response.
		header := e.w.Header()
		final := maps.Clone(header)
		clear(header)
		header["Link"] = links
		e.w.WriteHeader(http.StatusEarlyHints)
		clear(header)
		maps.Copy(header, final)
	}
	stream.Consumed(len(f.Data))
	return nil
}

// trail passes on a TRAILERS frame: the end of the response.
func (e *exchange) trail(f wire.Frame) error {
	trailers, err := decodeTrailers(f.Head)
	if err != nil {
		return &appFault{err}
	}
	if !e.request.takesTrailers() {
		return nil
	}
	// Once the headers have left, net/http is bound to the chunked coding, which has room for trailers.
	if err := http.NewResponseController(e.w).Flush(); err != nil {
		return err
	}
	header := e.w.Header()
	for _, field := range trailers {
		header.Add(http.TrailerPrefix+field.name, field.value)
	}
	return nil
}

// broken says what it means that no more frames come.
func (e *exchange) broken(ctx context.Context, w *worker, err error) error {
	if timeout, ok := errors.AsType[*timeoutError](err); ok {
		<-timeout.settled
		timeout.log(w, requestURI(e.request.Request), e.origin())
		return caddyhttp.Error(http.StatusGatewayTimeout, err)
	}
	// When a body breaks off, net/http ends ctx before the upload learns why, and gives the stream up.
	reset, left := errors.Is(err, wire.ErrReset), ctx.Err() != nil
	switch {
	case (reset || left) && e.pool.hasCutOff(w):
		return e.refusal(errPoolClosed)
	case left && e.upload != nil && e.upload.isGivenUp():
		return caddyhttp.Error(http.StatusRequestTimeout, os.ErrDeadlineExceeded)
	case reset && e.upload != nil:
		return e.upload.failure()
	case left:
		return caddyhttp.Error(statusClientClosed, ctx.Err())
	default:
		return err
	}
}

// appError reports what the app raised.
func (e *exchange) appError(w *worker, f wire.Frame) error {
	message, traceback := decodeAppError(f.Head)
	e.logAppError(w, message, traceback)
	return caddyhttp.Error(http.StatusInternalServerError, errors.New(message))
}

// decodeAppError reads the head of an ERROR.
func decodeAppError(head []byte) (message, traceback string) {
	message, traceback, err := decodeFailure(head)
	switch {
	case err != nil:
		return err.Error(), ""
	case message == "":
		return errIncomplete.Error(), ""
	default:
		return message, traceback
	}
}

// origin is what the log says of the request that an app's error belongs to.
type origin struct{ requestID, method, path string }

func (e *exchange) origin() origin {
	r := e.request.Request
	return origin{requestID: requestID(r), method: r.Method, path: r.URL.Path}
}

func (e *exchange) logAppError(w *worker, message, traceback string) {
	logAppError(e.logger, w, e.origin(), message, traceback)
}

func logAppError(logger *zap.Logger, w *worker, from origin, message, traceback string) {
	fields := []zap.Field{
		zap.String("app", w.pool.settings.App),
		zap.Int("worker", w.id),
		zap.String("request_id", from.requestID),
		zap.String("method", from.method),
		zap.String("path", from.path),
		zap.String("error", message),
	}
	if traceback != "" {
		fields = append(fields, zap.String("traceback", traceback))
	}
	logger.Error("python app raised an error", fields...)
}

// refusal turns a queue's answer into the client's.
func (e *exchange) refusal(err error) error {
	switch {
	case e.request.Context().Err() != nil && !errors.Is(err, errPoolClosed): // to cut off a body looks like a client that left
		return caddyhttp.Error(statusClientClosed, err)
	default:
		e.w.Header().Set("Retry-After", "1")
		return caddyhttp.Error(http.StatusServiceUnavailable, err)
	}
}

// replayable tells whether a second run of the request can do no harm (RFC 9110, section 9.2.2).
func (e *exchange) replayable() bool {
	if e.request.hasBody() && !e.empty {
		return false
	}
	switch e.request.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	default:
		return false
	}
}

// requestID is the request's {http.request.uuid}.
func requestID(r *http.Request) string {
	repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if !ok {
		return ""
	}
	id, _ := repl.GetString("http.request.uuid")
	return id
}
