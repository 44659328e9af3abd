package caddysnake

import (
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"golang.org/x/net/http/httpguts"

	"github.com/mliezun/caddy-snake/internal/marshal"
	"github.com/mliezun/caddy-snake/internal/websocket"
	"github.com/mliezun/caddy-snake/internal/wire"
)

// webSocketVersion is the one of RFC 6455.
const webSocketVersion = "13"

var (
	errRejected = errors.New("the app rejected the websocket")
	errAccepted = errors.New("the exchange has become a websocket") // so that nobody else touches its stream
)

// asksForWebSocket tells whether r is a WebSocket handshake: an upgrade (RFC 6455, section 4.2.1), or an extended CONNECT
// over HTTP/2 (RFC 8441), which net/http lets through if it is told to.
func asksForWebSocket(r *http.Request) bool {
	if r.ProtoMajor == 2 {
		return r.Method == http.MethodConnect && len(r.Header[":protocol"]) == 1 && r.Header[":protocol"][0] == "websocket"
	}
	upgrade := r.Header["Upgrade"]
	return upgrade != nil && r.ProtoMajor == 1 && r.ProtoMinor >= 1 && r.Method == http.MethodGet &&
		httpguts.HeaderValuesContainsToken(upgrade, "websocket") &&
		httpguts.HeaderValuesContainsToken(r.Header["Connection"], "Upgrade")
}

// checkHandshake refuses a handshake that RFC 6455 does not allow (section 4.2.1). What is in Origin is for the app to
// judge.
func checkHandshake(w http.ResponseWriter, r *http.Request) error {
	if versions := r.Header["Sec-Websocket-Version"]; len(versions) != 1 || versions[0] != webSocketVersion {
		w.Header().Set("Sec-WebSocket-Version", webSocketVersion)
		return caddyhttp.Error(http.StatusUpgradeRequired, fmt.Errorf("websocket version %q", versions))
	}
	if r.ProtoMajor != 1 {
		return nil // no key (RFC 8441, section 5)
	}
	if r.ContentLength != 0 { // net/http would not see the client leave before the body has been read
		w.Header().Set("Connection", "close") // or it would wait for the body
		return caddyhttp.Error(http.StatusBadRequest, errors.New("a websocket handshake with a body"))
	}
	keys := r.Header["Sec-Websocket-Key"]
	if len(keys) == 1 {
		if key, err := base64.StdEncoding.DecodeString(keys[0]); err == nil && len(key) == 16 {
			return nil
		}
	}
	return caddyhttp.Error(http.StatusBadRequest, fmt.Errorf("websocket key %q", keys))
}

// acceptKey answers a Sec-WebSocket-Key (RFC 6455, section 4.2.2).
func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// webSocketScheme is the scheme of a handshake's URL.
func webSocketScheme(req *request) string {
	if req.scheme == "https" {
		return "wss"
	}
	return "ws"
}

// subprotocols are those that the client offers, in its order of preference.
func subprotocols(r *http.Request) []string {
	var names []string
	for _, value := range r.Header["Sec-Websocket-Protocol"] {
		for name := range strings.SplitSeq(value, ",") {
			if name = strings.TrimSpace(name); name != "" {
				names = append(names, name)
			}
		}
	}
	return names
}

// accept completes the handshake. From then on the WebSocket owns the stream. Over HTTP/1 it also owns the connection, and
// relays in a goroutine of its own so that all that a request holds is let go of; HTTP/2 needs the handler to stay.
func (e *exchange) accept(w *worker, stream *wire.Stream, f wire.Frame) error {
	header := e.keepHead()
	subprotocol, err := readAccept(header, f.Head)
	if err != nil {
		e.logAppError(w, err.Error(), "")
		e.takeBackHead()
		return caddyhttp.Error(http.StatusInternalServerError, err)
	}
	if subprotocol != "" {
		header.Set("Sec-WebSocket-Protocol", subprotocol)
	}
	options := e.webSockets.options()
	if e.webSockets.Compression {
		var answer string
		if options.Compression, answer = websocket.Negotiate(e.request.Header["Sec-Websocket-Extensions"]); answer != "" {
			header.Set("Sec-WebSocket-Extensions", answer)
		}
	}
	s := &webSocket{stream: stream, worker: w, origin: e.origin(), logger: e.logger}
	transport, received, err := e.switchProtocols()
	if err != nil {
		return caddyhttp.Error(http.StatusInternalServerError, err)
	}
	s.client = websocket.New(transport, received, options)
	if e.request.ProtoMajor == 1 {
		go s.relay()
		return errAccepted
	}
	s.done = make(chan struct{})
	s.relay()
	<-s.done
	return errAccepted
}

// switchProtocols sends the response and returns the client's connection, with what was already read from it.
func (e *exchange) switchProtocols() (transport websocket.Transport, received []byte, err error) {
	header := e.w.Header()
	if e.request.ProtoMajor != 1 {
		e.w.WriteHeader(http.StatusOK)
		if err := http.NewResponseController(e.w).Flush(); err != nil {
			return nil, nil, err
		}
		tunnel, err := newTunnel(e.w, e.request.Request)
		return tunnel, nil, err
	}
	header.Set("Upgrade", "websocket")
	header.Set("Connection", "Upgrade")
	header.Set("Sec-WebSocket-Accept", acceptKey(e.request.Header.Get("Sec-WebSocket-Key")))
	e.w.WriteHeader(http.StatusSwitchingProtocols)
	conn, buffered, err := http.NewResponseController(innermost(e.w)).Hijack()
	if err != nil {
		return nil, nil, fmt.Errorf("taking over the client's connection: %w", err)
	}
	received, _ = buffered.Reader.Peek(buffered.Reader.Buffered())
	return conn, received, nil
}

// innermost returns the ResponseWriter that all others wrap. The wrapper that counts bytes for the access log would go
// on to count for an entry that has been written, and hide the connection's descriptor.
func innermost(w http.ResponseWriter) http.ResponseWriter {
	for {
		wrapper, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return w
		}
		w = wrapper.Unwrap()
	}
}

// innermostBody returns the body that Caddy's wrappers read from. They read no further once a deadline is over.
func innermostBody(r *http.Request) io.ReadCloser {
	if idle, _ := caddyhttp.IdleTimeoutsFromContext(r.Context()); idle != nil {
		return idle.ReadCloser
	}
	return r.Body
}

// tunnel is the connection of a WebSocket over HTTP/2. Nothing of Caddy's is between, as when a connection is taken over:
// its timeouts would end a WebSocket that is idle, and its limits are those of requests.
type tunnel struct {
	io.ReadCloser
	w               http.ResponseWriter
	control         *http.ResponseController
	writing, closed atomic.Bool
}

func newTunnel(w http.ResponseWriter, r *http.Request) (*tunnel, error) {
	t := &tunnel{ReadCloser: innermostBody(r), w: innermost(w)}
	t.control = http.NewResponseController(t.w)
	return t, errors.Join(t.control.SetReadDeadline(time.Time{}), t.control.SetWriteDeadline(time.Time{}))
}

func (t *tunnel) Write(p []byte) (int, error) {
	t.writing.Store(true)
	defer t.writing.Store(false)
	if t.closed.Load() {
		return 0, net.ErrClosed
	}
	n, err := t.w.Write(p)
	return n, errors.Join(err, t.control.Flush())
}

// Close implements io.Closer. Only a reset ends a Write that is under way; else the stream ends in good order, with the
// handler.
func (t *tunnel) Close() error {
	t.closed.Store(true)
	if t.writing.Load() {
		_ = t.control.SetWriteDeadline(past)
	}
	return t.ReadCloser.Close()
}

func (t *tunnel) SetReadDeadline(at time.Time) error { return t.control.SetReadDeadline(at) }

// readAccept decodes the head of an ACCEPT and puts its headers into h.
func readAccept(h http.Header, head []byte) (subprotocol string, err error) {
	r := marshal.NewReader(head)
	if n := r.Sequence(); n != 2 && r.Err() == nil {
		return "", fmt.Errorf("an accept head of %d parts", n)
	}
	text, _ := r.Text() // "" for none
	if err := addHeaders(h, &r); err != nil {
		return "", err
	}
	for name := range h {
		if strings.HasPrefix(name, "Sec-Websocket-") {
			return "", fmt.Errorf("header %s is the server's own", name)
		}
	}
	h.Del("Content-Length")
	if !httpguts.ValidHeaderFieldValue(string(text)) {
		return "", fmt.Errorf("illegal subprotocol %q", text)
	}
	return string(text), nil
}
