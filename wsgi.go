package caddysnake

import (
	"strconv"
	"strings"

	"github.com/mliezun/caddy-snake/internal/marshal"
)

// interfaceWSGI is what settings.Interface is for a WSGI app.
const interfaceWSGI = "wsgi"

// appendEnviron appends what the worker makes the WSGI environ of req from (PEP 3333, "environ Variables"): a tuple of
// those that every request has, in the order of docs/internals.md, and last a dict of all others. Names that come each time
// would cost the worker more than their values. Strings are the raw bytes taken as latin-1.
func appendEnviron(b []byte, req *request) []byte {
	serverName, serverPort := req.server()
	b = marshal.AppendTuple(b, 11)
	b = marshal.AppendLatin1(b, req.Method)
	b = marshal.AppendLatin1(b, req.rootPath)
	b = marshal.AppendLatin1(b, req.path)
	b = marshal.AppendLatin1(b, req.URL.RawQuery)
	b = marshal.AppendLatin1(b, req.target)
	b = marshal.AppendLatin1(b, serverName)
	b = marshal.AppendLatin1(b, strconv.Itoa(serverPort))
	b = marshal.AppendLatin1(b, req.Proto)
	b = marshal.AppendLatin1(b, req.clientIP)
	b = marshal.AppendLatin1(b, req.scheme)

	b = marshal.AppendDict(b)
	if req.clientPort != 0 {
		b = appendVar(b, "REMOTE_PORT", strconv.Itoa(req.clientPort))
	}
	if req.scheme == "https" {
		b = appendVar(b, "HTTPS", "on")
	}
	if req.host != "" {
		b = appendVar(b, "HTTP_HOST", req.host)
	}
	b = appendHeaderVars(b, req)
	return marshal.AppendDictEnd(b)
}

// isMultithread is wsgi.multithread.
func (s *settings) isMultithread() bool {
	// Greenlets count as threads: others are in the app while one waits.
	return s.Threads > 1 || s.Runtime == runtimeGevent
}

// isMultiprocess is wsgi.multiprocess.
func (s *settings) isMultiprocess() bool {
	return s.mostWorkers() > 1 && s.WorkersRuntime != runtimeThread
}

func appendVar(b []byte, key, value string) []byte {
	return marshal.AppendLatin1(marshal.AppendKey(b, key), value)
}

// appendHeaderVars appends HTTP_* for each header. Only "-" is folded to "_": a name that has "_" of its own would pass for
// another header, so it is left out (CVE-2015-0219).
func appendHeaderVars(b []byte, req *request) []byte {
	for name, values := range req.Header {
		switch {
		case len(values) == 0 || req.hidden(name):
			continue
		case name == "Content-Type":
			b = appendVar(b, "CONTENT_TYPE", values[0])
			continue
		case name == "Content-Length":
			b = appendVar(b, "CONTENT_LENGTH", values[0])
			continue
		}
		key, known := headerVars[name]
		if known {
			b = marshal.AppendKey(b, key)
		} else if strings.IndexByte(name, '_') < 0 {
			b = appendFolded(b, name)
		} else {
			continue
		}
		b = marshal.AppendLatin1(b, joinValues(name, values))
	}
	return b
}

// appendFolded appends the environ's name of a header.
func appendFolded(b []byte, name string) []byte {
	var folded [128]byte
	key := append(folded[:0], "HTTP_"...)
	for i := range len(name) {
		c := name[i]
		switch {
		case c == '-':
			c = '_'
		case 'a' <= c && c <= 'z':
			c -= 'a' - 'A'
		}
		key = append(key, c)
	}
	return marshal.AppendString(b, string(key))
}

// joinValues makes one value of a repeated header (RFC 9110, section 5.3; RFC 6265, section 5.4).
func joinValues(name string, values []string) string {
	if len(values) == 1 {
		return values[0]
	}
	if name == "Cookie" {
		return strings.Join(values, "; ")
	}
	return strings.Join(values, ",")
}

// headerVars are the environ's names of headers that most requests have. The worker interns these and no others: an
// interned string stays in memory, and anybody can make up a header.
var headerVars = func() map[string]string {
	vars := map[string]string{}
	for _, name := range commonHeaders {
		vars[name] = "HTTP_" + strings.ReplaceAll(strings.ToUpper(name), "-", "_")
	}
	return vars
}()

// commonHeaders are in the form of net/http: "Accept-Encoding".
var commonHeaders = []string{
	"Accept", "Accept-Encoding", "Accept-Language", "Access-Control-Request-Headers", "Access-Control-Request-Method",
	"Authorization", "Cache-Control", "Connection", "Cookie", "Dnt", "Expect", "If-Match", "If-Modified-Since",
	"If-None-Match", "If-Range", "If-Unmodified-Since", "Origin", "Pragma", "Priority", "Range", "Referer",
	"Sec-Ch-Ua", "Sec-Ch-Ua-Mobile", "Sec-Ch-Ua-Platform", "Sec-Fetch-Dest", "Sec-Fetch-Mode", "Sec-Fetch-Site",
	"Sec-Fetch-User", "Te", "Traceparent", "Tracestate", "Upgrade", "Upgrade-Insecure-Requests", "User-Agent",
	"X-Csrf-Token", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Request-Id", "X-Requested-With",
}
