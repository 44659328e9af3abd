package caddysnake

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/http/httpguts"

	"github.com/mliezun/caddy-snake/internal/marshal"
)

// setHeaders decodes the head of a RESPONSE, puts its headers beside those in h and returns the status. What HTTP does not
// allow is an error: a header that splits the response must never get out (CVE-2020-7695), although the worker has
// checked it too.
func setHeaders(h http.Header, head []byte) (status int, err error) {
	r := marshal.NewReader(head)
	if n := r.Sequence(); n != 2 && r.Err() == nil {
		return 0, fmt.Errorf("a response head of %d parts", n)
	}
	status = r.Int()
	if err := addHeaders(h, &r); err != nil {
		return 0, err
	}
	if status < 200 || status > 999 {
		return 0, fmt.Errorf("illegal status %d", status)
	}
	return status, nil
}

// addHeaders reads the headers that end a head, and puts them beside those in h.
func addHeaders(h http.Header, r *marshal.Reader) error {
	count := r.Sequence()
	values := make([]string, 0, count)
	for range count {
		if n := r.Sequence(); n != 2 && r.Err() == nil {
			return fmt.Errorf("a header of %d parts", n)
		}
		rawName, _ := r.Text()
		rawValue, isStr := r.Text()
		if r.Err() != nil {
			break
		}
		name, ok := headerName(rawName)
		if !ok {
			return fmt.Errorf("illegal header name %q", rawName)
		}
		if isStr && !fitsLatin1(rawValue) {
			return fmt.Errorf("header %s: a value outside latin-1", name)
		}
		value := headerValue(rawValue, isStr)
		if !httpguts.ValidHeaderFieldValue(value) {
			return fmt.Errorf("header %s: illegal value %q", name, value)
		}
		switch {
		case hopByHop(name):
			continue
		case name == "Content-Length":
			if present := h.Get(name); present != "" && present != value {
				return errors.New("two content-lengths that differ")
			}
			h[name] = []string{value}
			continue
		case name == "Content-Type": // another handler's is of another response
			h[name] = []string{value}
			continue
		}
		if present := h[name]; present != nil && name != "Server" {
			h[name] = append(present, value)
			continue
		}
		values = append(values, value)
		h[name] = values[len(values)-1 : len(values) : len(values)]
	}
	if err := r.End(); err != nil {
		return fmt.Errorf("the response's head: %w", err)
	}
	return nil
}

// field is one trailer.
type field struct{ name, value string }

// decodeTrailers decodes the head of a TRAILERS frame. A field that must not come as a trailer is an error (RFC 9110,
// section 6.5.1).
func decodeTrailers(head []byte) ([]field, error) {
	r := marshal.NewReader(head)
	count := r.Sequence()
	fields := make([]field, 0, count)
	for range count {
		if n := r.Sequence(); n != 2 && r.Err() == nil {
			return nil, fmt.Errorf("a trailer of %d parts", n)
		}
		rawName, _ := r.Text()
		rawValue, _ := r.Text()
		if r.Err() != nil {
			break
		}
		name, ok := headerName(rawName)
		value := string(rawValue)
		switch {
		case !ok || !httpguts.ValidTrailerHeader(name):
			return nil, fmt.Errorf("%q cannot be a trailer", rawName)
		case !httpguts.ValidHeaderFieldValue(value):
			return nil, fmt.Errorf("trailer %s: illegal value %q", name, value)
		}
		fields = append(fields, field{name, value})
	}
	if err := r.End(); err != nil {
		return nil, fmt.Errorf("the response's trailers: %w", err)
	}
	return fields, nil
}

// hintLinks splits the data of a HINT frame into Link values.
func hintLinks(data []byte) ([]string, error) {
	links := strings.Split(string(data), "\n")
	for _, link := range links {
		if !httpguts.ValidHeaderFieldValue(link) {
			return nil, fmt.Errorf("illegal link %q in an early hint", link)
		}
	}
	return links, nil
}

// headerName returns the canonical form of an app's header name.
func headerName(raw []byte) (string, bool) {
	if name, known := canonicalNames[string(raw)]; known { // does not allocate
		return name, true
	}
	name := string(raw)
	if !httpguts.ValidHeaderFieldName(name) {
		return "", false
	}
	return http.CanonicalHeaderKey(name), true
}

// canonicalNames saves canonicalising what most responses have.
var canonicalNames = func() map[string]string {
	names := map[string]string{}
	for _, name := range []string{
		"Accept-Ranges", "Access-Control-Allow-Credentials", "Access-Control-Allow-Origin", "Cache-Control",
		"Content-Disposition", "Content-Encoding", "Content-Language", "Content-Length", "Content-Type", "Date", "Etag",
		"Expires", "Last-Modified", "Location", "Referrer-Policy", "Server", "Set-Cookie", "Vary",
		"X-Content-Type-Options", "X-Frame-Options",
	} {
		names[name] = name
		names[strings.ToLower(name)] = name
	}
	return names
}()

// hopByHop tells whether a header is about the connection, which is Caddy's (RFC 9110, section 7.6.1). Trailer is the
// app's, who alone knows what will come.
func hopByHop(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Proxy-Connection", "Te", "Transfer-Encoding", "Upgrade":
		return true
	default:
		return false
	}
}

// headerValue makes the bytes that go out: a str's characters are bytes (PEP 3333), but travel as UTF-8.
func headerValue(raw []byte, isStr bool) string {
	for _, c := range raw {
		if isStr && c >= utf8.RuneSelf {
			return latin1(raw)
		}
	}
	return string(raw)
}

func latin1(text []byte) string {
	b := make([]byte, 0, len(text))
	for _, r := range string(text) {
		b = append(b, byte(r))
	}
	return string(b)
}

func fitsLatin1(text []byte) bool {
	for i := 0; i < len(text); {
		if text[i] < utf8.RuneSelf {
			i++
			continue
		}
		r, size := utf8.DecodeRune(text[i:])
		if r > 0xff {
			return false
		}
		i += size
	}
	return true
}
