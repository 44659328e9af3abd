package caddysnake

import (
	"crypto/tls"
	"reflect"
	"testing"

	"github.com/mliezun/caddy-snake/internal/marshal"
)

func esgiScope(t *testing.T, req request) map[string]any {
	t.Helper()
	value, err := marshal.Decode(appendESGIScope(nil, &req))
	if err != nil {
		t.Fatal(err)
	}
	return value.(map[string]any)
}

func TestESGIHeaders(t *testing.T) {
	r := requestTo("/")
	r.Host = "shop.example:81"
	r.Header = map[string][]string{
		"X-One": {"1"}, "Accept": {"a", "b"}, "Cookie": {"a=1", "b=2"}, "X-Byte": {"\xff"},
		"Proxy": {"http://evil.example"}, "X-Forwarded-For": {"192.0.2.1"},
	}
	got := esgiScope(t, newRequest(r, rootPathAuto))["headers"]
	want := map[string]any{
		"host": "shop.example:81", "x-one": "1", "accept": []any{"a", "b"}, "cookie": "a=1; b=2", "x-byte": "\u00ff",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestESGIScopeOfARequestWithoutAHost(t *testing.T) {
	r := requestTo("/a%20b/%FF?q=%20\xe9")
	r.Host, r.Proto, r.ProtoMinor = "", "HTTP/1.0", 0
	got := esgiScope(t, newRequest(r, rootPathAuto))
	delete(got, "server") // the address that the connection came to, if it is known
	want := map[string]any{
		"proto": "http", "esgi_version": "0.1", "http_version": "1.0", "client": "192.0.2.1:0", "scheme": "http",
		"method": "GET", "path": "/a b/\uFFFD", "query_string": "q=%20\u00e9", "headers": map[string]any{}, "authority": nil,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestESGIScopeOfAWebSocketOverTLS(t *testing.T) {
	r := requestTo("/")
	r.TLS = new(tls.ConnectionState)
	req := newRequest(r, rootPathAuto)
	value, err := marshal.Decode(appendESGIWebSocketScope(nil, &req))
	if err != nil {
		t.Fatal(err)
	}
	if got := value.(map[string]any); got["proto"] != "ws" || got["scheme"] != "wss" {
		t.Errorf("proto %v, scheme %v", got["proto"], got["scheme"])
	}
}
