package caddysnake

import (
	"net"
	"strconv"
	"strings"

	"github.com/mliezun/caddy-snake/internal/marshal"
)

// interfaceESGI is what settings.Interface is for an ESGI app.
const interfaceESGI = "esgi"

// esgiVersion is the version that the scope names; docs/esgi.md is its specification.
const esgiVersion = "0.1"

// appendESGIScope appends the ESGI scope of an HTTP request.
func appendESGIScope(b []byte, req *request) []byte {
	return appendESGI(b, req, "http", req.scheme)
}

// appendESGIWebSocketScope appends the ESGI scope of a WebSocket's handshake.
func appendESGIWebSocketScope(b []byte, req *request) []byte {
	return appendESGI(b, req, "ws", webSocketScheme(req))
}

// appendESGI appends a scope. Of headers, it appends a dict whose values are a str, or a list of them where a name is
// repeated; the worker makes the mapping that apps see.
func appendESGI(b []byte, req *request, proto, scheme string) []byte {
	b = marshal.AppendDict(b)
	b = appendText(b, "proto", proto)
	b = appendText(b, "esgi_version", esgiVersion)
	b = appendText(b, "http_version", scopeHTTPVersion(req))
	name, port := req.server()
	b = appendText(b, "server", net.JoinHostPort(name, strconv.Itoa(port)))
	client := ""
	if req.clientIP != "" {
		client = net.JoinHostPort(req.clientIP, strconv.Itoa(req.clientPort))
	}
	b = appendText(b, "client", client)
	b = appendText(b, "scheme", scheme)
	b = appendText(b, "method", req.Method)
	b = appendText(b, "path", req.path)
	b = appendVar(b, "query_string", req.URL.RawQuery)
	b = appendHeaderDict(marshal.AppendKey(b, "headers"), req)
	b = marshal.AppendKey(b, "authority")
	if req.host == "" {
		b = marshal.AppendNone(b)
	} else {
		b = marshal.AppendLatin1(b, req.host)
	}
	return marshal.AppendDictEnd(b)
}

func appendText(b []byte, key, value string) []byte {
	return marshal.AppendString(marshal.AppendKey(b, key), value)
}

// appendHeaderDict appends the headers with lower-case names. The worker interns those that most requests have.
func appendHeaderDict(b []byte, req *request) []byte {
	b = marshal.AppendDict(b)
	if req.host != "" {
		b = appendVar(b, "host", req.host)
	}
	for name, values := range req.Header {
		if len(values) == 0 || req.hidden(name) {
			continue
		}
		if lower, known := lowerHeaders[name]; known {
			b = marshal.AppendKey(b, lower)
		} else {
			b = marshal.AppendString(b, strings.ToLower(name))
		}
		if len(values) == 1 || name == "Cookie" { // RFC 9113, section 8.2.3: the parts of a cookie are one value
			b = marshal.AppendLatin1(b, joinValues(name, values))
			continue
		}
		b = marshal.AppendList(b, len(values))
		for _, value := range values {
			b = marshal.AppendLatin1(b, value)
		}
	}
	return marshal.AppendDictEnd(b)
}
