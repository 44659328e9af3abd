package caddysnake

import (
	"context"
	"errors"
	"fmt"
	"net/http"
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
	upload  *upload      // nil when the request has no body, or all of it is in the first frame
	began   bool         // the response has begun
	lasting bool         // it is enrolled in the pool
	writeBy atomic.Int64 // when the client must have taken what is being written, in Unix nanoseconds; 0 while nothing is
}

// frames recycles the buffers of REQUEST frames.
var frames = sync.Pool{New: func() any { b := make([]byte, 0, 4<<10); return &b }}

// encoder appends the head of a REQUEST: an environ or a scope.
type encoder func(b []byte, req *request, s *settings) []byte

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
	frame := encode(wire.AppendHeader((*buffer)[:0]), &e.request, &e.pool.settings)
	head := len(frame) - wire.HeaderSize
	defer e.dismiss()
	frame, whole, err := e.beginUpload(frame)
	if err != nil {
		return err
	}
	*buffer = frame
	defer e.endUpload()
	if err := wire.PutHeader(frame, wire.Request, whole, head); err != nil {
		return caddyhttp.Error(http.StatusRequestHeaderFieldsTooLarge, err)
	}

	for replayed := false; ; {
		w, err := e.pool.acquire(ctx)
		if err != nil {
			return e.refusal(err)
		}
		stream, err := w.conn.Open(frame)
		if err != nil { // the worker has just gone and will not be picked again
			e.pool.release(w, false)
			continue
		}
		err = e.serve(ctx, w, stream)
		switch {
		case errors.Is(err, errDeclined):
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
			return e.broken(ctx, err)
		}
		switch f.Type {
		case wire.Response:
			if err := e.begin(f); err != nil {
				e.logAppError(w, err.Error(), "")
				return caddyhttp.Error(http.StatusInternalServerError, err)
			}
		case wire.Data:
		case wire.Decline:
			return errDeclined
		case wire.Error:
			return e.appError(w, f)
		default:
			return caddyhttp.Error(http.StatusBadGateway, errIncomplete)
		}
		if !f.End {
			e.enrol()
		}
		if err := e.write(stream, f); err != nil {
			if errors.Is(err, http.ErrContentLength) {
				e.logAppError(w, "the response is longer than its content-length", "")
			}
			return caddyhttp.Error(statusClientClosed, err)
		}
		if f.End {
			return nil
		}
		if !stream.More() {
			if err := http.NewResponseController(e.w).Flush(); err != nil {
				return caddyhttp.Error(statusClientClosed, err)
			}
		}
	}
}

// begin sends the status and headers.
func (e *exchange) begin(f wire.Frame) error {
	status, err := setHeaders(e.w.Header(), f.Head)
	if err != nil {
		return err
	}
	if e.upload != nil {
		e.upload.beforeResponse(e.w.Header())
	}
	e.began = true
	e.w.WriteHeader(status)
	return nil
}

// write sends a part of the body.
func (e *exchange) write(stream *wire.Stream, f wire.Frame) error {
	if len(f.Data) == 0 {
		return nil
	}
	if e.lasting {
		e.writeBy.Store(time.Now().Add(allowed(len(f.Data))).UnixNano())
		defer e.writeBy.Store(0)
	}
	if _, err := e.w.Write(f.Data); err != nil && !errors.Is(err, http.ErrBodyNotAllowed) {
		return err
	}
	stream.Consumed(len(f.Data))
	return nil
}

// broken says what it means that no more frames come.
func (e *exchange) broken(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, wire.ErrReset) && e.pool.isClosed():
		return e.refusal(errPoolClosed)
	case errors.Is(err, wire.ErrReset) && e.upload != nil: // net/http ends ctx too when a body breaks off
		return e.upload.failure()
	case ctx.Err() != nil:
		return caddyhttp.Error(statusClientClosed, ctx.Err())
	default:
		return err
	}
}

// appError reports what the app raised.
func (e *exchange) appError(w *worker, f wire.Frame) error {
	message, traceback, err := decodeFailure(f.Head)
	if err != nil {
		message = err.Error()
	}
	if message == "" {
		message = errIncomplete.Error()
	}
	e.logAppError(w, message, traceback)
	return caddyhttp.Error(http.StatusInternalServerError, errors.New(message))
}

func (e *exchange) logAppError(w *worker, message, traceback string) {
	r := e.request.Request
	fields := []zap.Field{
		zap.String("app", e.pool.settings.App),
		zap.Int("worker", w.id),
		zap.String("request_id", requestID(r)),
		zap.String("method", r.Method),
		zap.String("path", r.URL.Path),
		zap.String("error", message),
	}
	if traceback != "" {
		fields = append(fields, zap.String("traceback", traceback))
	}
	e.logger.Error("python app raised an error", fields...)
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
	if e.request.hasBody() {
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
