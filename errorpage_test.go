package caddysnake

import (
	"context"
	"net/http/httptest"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func TestWhoIsLocal(t *testing.T) {
	for _, test := range []struct {
		remote, client string // the connection's other end, and who Caddy says that the client is
		header         string
		local          bool
	}{
		{remote: "127.0.0.1:1234", client: "127.0.0.1", local: true},
		{remote: "[::1]:1234", client: "::1", local: true},
		{remote: "127.8.9.10:1234", client: "127.8.9.10", local: true},
		{remote: "192.0.2.1:1234", client: "192.0.2.1"},
		{remote: "10.0.0.1:1234", client: "10.0.0.1"},
		{remote: "[2001:db8::1]:1234", client: "2001:db8::1"},
		{remote: "127.0.0.1:1234", client: "192.0.2.1"}, // through a trusted proxy on this machine
		{remote: "192.0.2.1:1234", client: "127.0.0.1"}, // so a trusted proxy says
		{remote: "127.0.0.1:1234", client: "127.0.0.1", header: "X-Forwarded-For"},
		{remote: "127.0.0.1:1234", client: "127.0.0.1", header: "Via"},
		{remote: "@", client: "@"}, // a Unix socket
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = test.remote
		vars := map[string]any{caddyhttp.ClientIPVarKey: test.client}
		r = r.WithContext(context.WithValue(r.Context(), caddyhttp.VarsCtxKey, vars))
		if test.header != "" {
			r.Header.Set(test.header, "127.0.0.1")
		}
		if got := isLocal(r); got != test.local {
			t.Errorf("%+v: got %t", test, got)
		}
	}
}
