package caddysnake

import (
	"encoding/json"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/rewrite"
)

func TestStrippingByHandlersThatAreLoaded(t *testing.T) {
	loaded := func(handlers ...caddyhttp.MiddlewareHandler) caddyhttp.RouteList {
		return caddyhttp.RouteList{{Handlers: handlers}}
	}
	inner := &caddyhttp.Subroute{Routes: loaded(&rewrite.Rewrite{StripPathPrefix: "/inner"})}
	server := &caddyhttp.Server{Routes: loaded(&rewrite.Rewrite{StripPathPrefix: "/api"}, inner)}
	s, err := newStripping(server)
	if err != nil {
		t.Fatal(err)
	}
	for removed, want := range map[string]bool{"/api": true, "/inner": true, "/api/inner": true, "/other": false, "/other/inner": false} {
		if got := s.explains(removed); got != want {
			t.Errorf("%q: got %t", removed, got)
		}
	}
}

func TestStripping(t *testing.T) {
	tests := []struct {
		name, handler string
		explained     map[string]bool
	}{
		{"nothing is stripped", `{"handler": "rewrite", "uri": "/"}`, map[string]bool{"/api": false, "/any/thing": false}},
		{"a prefix", `{"handler": "rewrite", "strip_path_prefix": "/api"}`,
			map[string]bool{"/api": true, "/API": true, "/api/api": true, "/outer/api": false, "/other": false, "/api/more": false}},
		{"without a slash, with one at the end, escaped", `{"handler": "rewrite", "strip_path_prefix": "caf\u00e9%20b/"}`,
			map[string]bool{"/café b": true, "/café": false}},
		{"deep in a subroute", `{"handler": "subroute", "routes": [{"handle": [{"handler": "rewrite", "strip_path_prefix": "/x"}]}]}`,
			map[string]bool{"/x": true, "/y": false}},
		{"a placeholder", `{"handler": "rewrite", "strip_path_prefix": "/{http.request.host}"}`, map[string]bool{"/any": true}},
		{"a replacement", `{"handler": "rewrite", "uri_substring": [{"find": "/api", "replace": ""}]}`, map[string]bool{"/any": true}},
		{"a regular expression", `{"handler": "rewrite", "path_regexp": [{"find": "^/v[0-9]", "replace": ""}]}`, map[string]bool{"/v1": true}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			server := &caddyhttp.Server{Routes: caddyhttp.RouteList{{HandlersRaw: []json.RawMessage{json.RawMessage(test.handler)}}}}
			s, err := newStripping(server)
			if err != nil {
				t.Fatal(err)
			}
			for removed, want := range test.explained {
				if got := s.explains(removed); got != want {
					t.Errorf("%q: got %t", removed, got)
				}
			}
		})
	}
}
