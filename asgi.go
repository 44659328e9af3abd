package caddysnake

import (
	"strings"

	"github.com/mliezun/caddy-snake/internal/marshal"
)

// interfaceASGI is what settings.Interface is for an ASGI app.
const interfaceASGI = "asgi"

// The versions that the scope names: ASGI 3.0, HTTP and WebSocket message format 2.5.
const (
	asgiVersion = "3.0"
	httpVersion = "2.5"
)

// appendScope appends the ASGI scope of req (ASGI HTTP message format, "HTTP Connection Scope"), all but state, which the
// worker adds.
func appendScope(b []byte, req *request, _ *settings) []byte {
	b = marshal.AppendDict(b)
	b = appendText(b, "type", "http")
	b = appendText(b, "method", req.Method)
	b = appendText(b, "scheme", req.scheme)
	b = appendConnection(b, req)
	b = appendExtensions(marshal.AppendKey(b, "extensions"), req)
	return marshal.AppendDictEnd(b)
}

// appendWebSocketScope appends the ASGI scope of a handshake ("WebSocket Connection Scope"), all but state.
func appendWebSocketScope(b []byte, req *request, _ *settings) []byte {
	b = marshal.AppendDict(b)
	b = appendText(b, "type", "websocket")
	b = appendText(b, "scheme", webSocketScheme(req))
	b = appendConnection(b, req)
	names := subprotocols(req.Request)
	b = marshal.AppendList(marshal.AppendKey(b, "subprotocols"), len(names))
	for _, name := range names {
		b = marshal.AppendString(b, name)
	}
	b = marshal.AppendDict(marshal.AppendKey(b, "extensions"))
	b = appendEmpty(b, "websocket.http.response")
	if req.TLS != nil {
		b = appendTLS(marshal.AppendKey(b, "tls"), req.TLS)
	}
	b = marshal.AppendDictEnd(b)
	return marshal.AppendDictEnd(b)
}

// appendConnection appends what all scopes have.
func appendConnection(b []byte, req *request) []byte {
	b = marshal.AppendDict(marshal.AppendKey(b, "asgi"))
	b = appendText(b, "version", asgiVersion)
	b = appendText(b, "spec_version", httpVersion)
	b = marshal.AppendDictEnd(b)
	b = appendText(b, "http_version", scopeHTTPVersion(req))
	b = appendText(b, "root_path", req.rootPath)
	b = appendText(b, "path", req.rootPath+req.path)
	b = marshal.AppendBytes(marshal.AppendKey(b, "raw_path"), rawPath(req))
	b = marshal.AppendBytes(marshal.AppendKey(b, "query_string"), req.URL.RawQuery)
	b = appendHeaderPairs(marshal.AppendKey(b, "headers"), req)
	b = appendAddress(marshal.AppendKey(b, "client"), req.clientIP, req.clientPort)
	name, port := req.server()
	return appendAddress(marshal.AppendKey(b, "server"), name, port)
}

// appendExtensions appends a request's extensions that depend on the client (ASGI, "Extensions"). The worker adds those that send
// descriptors.
func appendExtensions(b []byte, req *request) []byte {
	b = marshal.AppendDict(b)
	if req.ProtoAtLeast(1, 1) {
		b = appendEmpty(b, "http.response.early_hint")
	}
	if req.takesTrailers() {
		b = appendEmpty(b, "http.response.trailers")
	}
	if req.TLS != nil {
		b = appendTLS(marshal.AppendKey(b, "tls"), req.TLS)
	}
	return marshal.AppendDictEnd(b)
}

func appendEmpty(b []byte, key string) []byte {
	return marshal.AppendDictEnd(marshal.AppendDict(marshal.AppendKey(b, key)))
}

func appendText(b []byte, key, value string) []byte {
	return marshal.AppendString(marshal.AppendKey(b, key), value)
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
