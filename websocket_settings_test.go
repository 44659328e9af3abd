package caddysnake

import (
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
)

func TestWebSocketSettings(t *testing.T) {
	for _, test := range []struct {
		given *WebSocketConfig
		want  webSocketSettings
	}{
		{nil, webSocketSettings{PingInterval: 20 * time.Second, PingTimeout: 20 * time.Second, MaxSize: 16 << 20}},
		{
			&WebSocketConfig{PingInterval: caddy.Duration(time.Minute), PingTimeout: -1, MaxSize: 1000, Compression: "on"},
			webSocketSettings{PingInterval: time.Minute, MaxSize: 1000, Compression: true},
		},
	} {
		c := Config{ModuleASGI: "main:app", WebSocket: test.given}
		if got := c.webSockets(); got != test.want {
			t.Errorf("got %+v, want %+v", got, test.want)
		}
	}
}
