package caddysnake

import (
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/dustin/go-humanize"

	"github.com/mliezun/caddy-snake/internal/websocket"
)

// WebSocketConfig says how Caddy looks after an app's WebSockets. Python has no part in it: a change keeps the workers.
type WebSocketConfig struct {
	// How long nothing may come from a client before it is sent a ping. Default: 20s; -1: never.
	PingInterval caddy.Duration `json:"ping_interval,omitempty"`

	// How long a client may take to answer a ping before its connection is closed. Default: 20s; -1: for ever.
	PingTimeout caddy.Duration `json:"ping_timeout,omitempty"`

	// The largest message that a client may send, in bytes, after decompression; a larger one closes the WebSocket with
	// code 1009. Default: 16777216, which is 16 MiB.
	MaxSize int64 `json:"max_size,omitempty"`

	// Whether messages are compressed (RFC 7692) when the client can: "on", or "off" (the default).
	Compression string `json:"compression,omitempty"`
}

const (
	defaultPing    = 20 * time.Second
	defaultMaxSize = 16 << 20
	// noLimit is the duration that stands for none.
	noLimit caddy.Duration = -1
)

// webSocketSettings is a WebSocketConfig resolved.
type webSocketSettings struct {
	PingInterval time.Duration // 0: never
	PingTimeout  time.Duration // 0: for ever
	MaxSize      int64
	Compression  bool
}

func (s *webSocketSettings) options() websocket.Options {
	return websocket.Options{PingInterval: s.PingInterval, PingTimeout: s.PingTimeout, MaxSize: s.MaxSize}
}

// webSockets applies the defaults. Config must be valid.
func (c *Config) webSockets() webSocketSettings {
	given := c.WebSocket
	if given == nil {
		given = new(WebSocketConfig)
	}
	s := webSocketSettings{
		PingInterval: orDefault(given.PingInterval, defaultPing),
		PingTimeout:  orDefault(given.PingTimeout, defaultPing),
		MaxSize:      given.MaxSize,
		Compression:  given.Compression == "on",
	}
	if s.MaxSize == 0 {
		s.MaxSize = defaultMaxSize
	}
	return s
}

func orDefault(d caddy.Duration, otherwise time.Duration) time.Duration {
	switch d {
	case 0:
		return otherwise
	case noLimit:
		return 0
	default:
		return time.Duration(d)
	}
}

func (c *Config) validateWebSocket() error {
	w := c.WebSocket
	switch {
	case w == nil:
		return nil
	case c.ModuleWSGI != "":
		return wrong("websocket", "a WSGI app takes no WebSockets; remove it")
	}
	if err := validatePing("websocket ping_interval", w.PingInterval); err != nil {
		return err
	}
	if err := validatePing("websocket ping_timeout", w.PingTimeout); err != nil {
		return err
	}
	if w.MaxSize < 0 {
		return wrong("websocket max_size", "%d is not possible; give a number of bytes, or leave it out for 16 MiB", w.MaxSize)
	}
	if w.Compression != "" && w.Compression != "on" && w.Compression != "off" {
		return wrong("websocket compression", "%q is unknown; use on or off", w.Compression)
	}
	return nil
}

func validatePing(setting string, d caddy.Duration) error {
	if d < 0 && d != noLimit {
		return wrong(setting, "%s is not possible; give a duration such as 20s, or -1 for never", time.Duration(d))
	}
	return nil
}

// webSocketSubdirectives are the settings of the websocket block.
var webSocketSubdirectives = map[string]subdirective{
	"ping_interval": {args: "DURATION|off", set: func(c *Config, args []string) (err error) {
		c.WebSocket.PingInterval, err = parsePing("websocket ping_interval", args[0])
		return err
	}},
	"ping_timeout": {args: "DURATION|off", set: func(c *Config, args []string) (err error) {
		c.WebSocket.PingTimeout, err = parsePing("websocket ping_timeout", args[0])
		return err
	}},
	"max_size": {args: "SIZE", set: func(c *Config, args []string) error {
		size, err := humanize.ParseBytes(args[0])
		if err != nil || size == 0 || size > 1<<40 {
			return wrong("websocket max_size", "%q is not possible; give a size such as 64KiB or 16MiB", args[0])
		}
		c.WebSocket.MaxSize = int64(size)
		return nil
	}},
	"compression": text("on|off", func(c *Config) *string { return &c.WebSocket.Compression }),
}

func parsePing(setting, text string) (caddy.Duration, error) {
	if text == "off" || text == "-1" {
		return noLimit, nil
	}
	duration, err := caddy.ParseDuration(text)
	if err != nil || duration <= 0 {
		return 0, wrong(setting, "%q is not possible; give a duration such as 20s, or off", text)
	}
	return caddy.Duration(duration), nil
}
