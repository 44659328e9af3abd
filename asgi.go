package caddysnake

import (
	"strings"

	"github.com/mliezun/caddy-snake/internal/marshal"
)

// interfaceASGI is what settings.Interface is for an ASGI app.
const interfaceASGI = "asgi"

// Extensions that depend on the client, as bits (ASGI, "Extensions"). The worker adds those that send descriptors.
const (
	extensionEarlyHint = 1 << iota
	extensionTrailers
)

// appendScope appends what the worker makes the ASGI scope of req from (ASGI HTTP message format, "HTTP Connection
// Scope"): a tuple in the order of docs/internals.md. Keys that come each time would cost the worker more than their values.
func appendScope(b []byte, req *request) []byte {
	extensions := 0
	if req.ProtoAtLeast(1, 1) {
		extensions |= extensionEarlyHint
	}
	if req.takesTrailers() {
		extensions |= extensionTrailers
	}
	return marshal.AppendNone(appendConnection(b, req, req.scheme, extensions))
}

// appendWebSocketScope appends the same of a handshake ("WebSocket Connection Scope"), which has subprotocols.
func appendWebSocketScope(b []byte, req *request) []byte {
	b = appendConnection(b, req, webSocketScheme(req), 0)
	names := subprotocols(req.Request)
	b = marshal.AppendList(b, len(names))
	for _, name := range names {
		b = marshal.AppendString(b, name)
	}
	return b
}

// appendConnection appends all of the tuple but its last value.
func appendConnection(b []byte, req *request, scheme string, extensions int) []byte {
	b = marshal.AppendTuple(b, 13)
	b = marshal.AppendString(b, req.Method)
	b = marshal.AppendString(b, scheme)
	b = marshal.AppendString(b, scopeHTTPVersion(req))
	b = marshal.AppendString(b, req.rootPath)
	b = marshal.AppendString(b, req.rootPath+req.path)
	b = marshal.AppendBytes(b, rawPath(req))
	b = marshal.AppendBytes(b, req.URL.RawQuery)
	b = appendHeaderPairs(b, req)
	if req.clientIP == "" {
		b = marshal.AppendNone(b)
	} else {
		b = appendAddress(b, req.clientIP, req.clientPort)
	}
	name, port := req.server()
	b = appendAddress(b, name, port)
	b = marshal.AppendInt(b, int64(extensions))
	if req.TLS == nil {
		return marshal.AppendNone(b)
	}
	return appendTLS(b, req.TLS)
}

func appendAddress(b []byte, host string, port int) []byte {
	b = marshal.AppendString(marshal.AppendTuple(b, 2), host)
	return marshal.AppendInt(b, int64(port))
}

func scopeHTTPVersion(req *request) string {
	switch {
	case req.ProtoMajor >= 3:
		return "3"
	case req.ProtoMajor == 2:
		return "2"
	case req.ProtoMinor == 0:
		return "1.0"
	default:
		return "1.1"
	}
}

// rawPath is the path of the original target, exactly as it was sent.
func rawPath(req *request) string {
	path, _, _ := strings.Cut(req.target, "?")
	if strings.HasPrefix(path, "/") {
		return path
	}
	_, path, _ = strings.Cut(path, "://") // absolute-form (RFC 9112, section 3.2.2)
	_, path, _ = strings.Cut(path, "/")
	return "/" + path
}

// appendHeaderPairs appends the headers with lower-case names; the values of one name keep their order.
func appendHeaderPairs(b []byte, req *request) []byte {
	count := 0
	if req.host != "" {
		count++
	}
	for name, values := range req.Header {
		if !req.hidden(name) {
			count += len(values)
		}
	}
	b = marshal.AppendList(b, count)
	if req.host != "" {
		b = appendPair(b, "host", req.host)
	}
	for name, values := range req.Header {
		if req.hidden(name) {
			continue
		}
		lower, known := lowerHeaders[name]
		if !known {
			lower = strings.ToLower(name)
		}
		for _, value := range values {
			b = appendPair(b, lower, value)
		}
	}
	return b
}

func appendPair(b []byte, name, value string) []byte {
	return marshal.AppendBytes(marshal.AppendBytes(marshal.AppendTuple(b, 2), name), value)
}

// lowerHeaders saves making the lower-case form of what most requests have.
var lowerHeaders = func() map[string]string {
	lower := map[string]string{"Content-Type": "content-type", "Content-Length": "content-length"}
	for _, name := range commonHeaders {
		lower[name] = strings.ToLower(name)
	}
	return lower
}()
