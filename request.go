package caddysnake

import (
	"maps"
	"net"
	"net/http"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"golang.org/x/net/http/httpguts"
)

// rootPathAuto takes the root path from what other handlers removed from the front of the request's path.
const rootPathAuto = "auto"

// request is what both interfaces say of a request, with Caddy's verdicts applied: whom to believe about the client, and
// which part of the path belongs to the app.
type request struct {
	*http.Request
	target     string // the request target as the client sent it: path and query
	rootPath   string // where the app is mounted: SCRIPT_NAME, root_path; decoded
	path       string // the path without rootPath; decoded
	scheme     string // http or https
	host       string // the Host header, or what a trusted proxy says it was; may be empty
	clientIP   string // empty when the client is not known: at the other end of a Unix socket
	clientPort int    // 0 when the client is behind a proxy
	trusted    bool   // the request comes from one of Caddy's trusted_proxies
}

// newRequest looks at r. rootPath is the handler's setting, "auto" or a path.
func newRequest(r *http.Request, rootPath string) request {
	req := request{Request: r, target: r.RequestURI, path: r.URL.Path, host: r.Host, scheme: "http"}
	if r.TLS != nil {
		req.scheme = "https"
	}
	if req.path == "" { // of an absolute target without a path (RFC 9110, section 4.2.3)
		req.path = "/"
	}
	req.setPaths(rootPath)
	req.setClient()
	req.setLength()
	if req.trusted {
		req.believeProxy()
	}
	return req
}

// setPaths splits the path into the part that the app is mounted at and the rest.
func (r *request) setPaths(rootPath string) {
	original, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request)
	if ok {
		r.target = original.RequestURI
	}
	if rootPath != rootPathAuto {
		// The prefix is still there unless another handler removed it.
		r.rootPath = rootPath
		if n := len(rootPath); len(r.path) >= n && strings.EqualFold(r.path[:n], rootPath) { // as Caddy's matchers compare
			if rest := r.path[n:]; rest == "" || rest[0] == '/' {
				r.path = rest
			}
		}
		return
	}
	if ok && original.URL != nil && original.URL.Path != r.path {
		r.rootPath = removedPrefix(original.URL, r.path)
	}
}

// setClient takes the client's address from Caddy, which has looked at trusted_proxies.
func (r *request) setClient() {
	host, port, _ := net.SplitHostPort(r.RemoteAddr) // empty for a Unix socket's client, which is "@" here and in the verdict
	r.trusted, _ = caddyhttp.GetVar(r.Context(), caddyhttp.TrustedProxyVarKey).(bool)
	r.clientIP, _ = caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	if r.clientIP == "" || r.clientIP == host || r.clientIP == r.RemoteAddr {
		r.clientIP = host
		r.clientPort, _ = strconv.Atoi(port)
	}
	if zone := strings.IndexByte(r.clientIP, '%'); zone >= 0 {
		r.clientIP = r.clientIP[:zone]
	}
}

// setLength has the Content-Length header tell of the body that is there: request_body may have put in another one.
func (r *request) setLength() {
	declared := r.Header["Content-Length"]
	if declared == nil && r.ContentLength <= 0 {
		return
	}
	length := strconv.FormatInt(r.ContentLength, 10)
	if len(declared) == 1 && declared[0] == length {
		return
	}
	changed := *r.Request
	changed.Header = maps.Clone(r.Header)
	if r.ContentLength < 0 {
		delete(changed.Header, "Content-Length")
	} else {
		changed.Header["Content-Length"] = []string{length}
	}
	r.Request = &changed
}

// believeProxy takes the scheme and host from a trusted proxy.
func (r *request) believeProxy() {
	switch strings.ToLower(firstItem(r.Header.Get("X-Forwarded-Proto"))) {
	case "http", "ws": // Traefik says the latter of WebSockets
		r.scheme = "http"
	case "https", "wss":
		r.scheme = "https"
	}
	if host := firstItem(r.Header.Get("X-Forwarded-Host")); host != "" {
		r.host = host
	}
}

// server splits the host into SERVER_NAME and SERVER_PORT, which must not be empty although HTTP/1.0 needs no Host header.
func (r *request) server() (name string, port int) {
	host := r.host
	if host == "" || host[0] == ':' {
		if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
			host = local.String()
		}
	}
	port = 80
	if r.scheme == "https" {
		port = 443
	}
	name, given, err := net.SplitHostPort(host)
	if err != nil {
		return strings.Trim(host, "[]"), port
	}
	if n, err := strconv.ParseUint(given, 10, 16); err == nil {
		port = int(n)
	}
	return name, port
}

// hidden tells whether a header is kept from the app: Proxy would become HTTP_PROXY, which HTTP clients obey
// (CVE-2016-1000110); what says who a proxy's client was counts only from a trusted proxy.
func (r *request) hidden(name string) bool {
	switch name {
	case "Proxy", ":protocol": // the latter is net/http's way to tell of an extended CONNECT
		return true
	case "Forwarded":
		return !r.trusted
	default:
		return !r.trusted && strings.HasPrefix(name, "X-Forwarded-")
	}
}

// hasBody tells whether the request has a body, or may have one.
func (r *request) hasBody() bool {
	return r.ContentLength != 0 && r.Body != nil && r.Body != http.NoBody
}

// takesTrailers tells whether the client wants trailers, and its version of HTTP has any (RFC 9110, section 6.5.1).
func (r *request) takesTrailers() bool {
	return r.ProtoAtLeast(1, 1) && httpguts.HeaderValuesContainsToken(r.Header["Te"], "trailers")
}

// firstItem returns the first of a comma-separated list.
func firstItem(list string) string {
	item, _, _ := strings.Cut(list, ",")
	return strings.TrimSpace(item)
}
