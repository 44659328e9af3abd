package caddysnake

import (
	"cmp"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// LimitsConfig says what happens when the workers have too much to do.
type LimitsConfig struct {
	// How long the app may take to begin its response, from when a worker is given the request; the time in which the
	// client's body is waited for does not count, nor a WebSocket after its handshake. Then the client gets a 504, the app an
	// exception, and the log the app's stack. Default, and -1: for ever.
	RequestTimeout caddy.Duration `json:"request_timeout,omitempty"`

	// What happens to requests for which no worker has room.
	Queue *QueueConfig `json:"queue,omitempty"`
}

// QueueConfig bounds the queue of requests for which no worker has room.
type QueueConfig struct {
	// How many requests may wait. Default: 10000.
	Size int `json:"size,omitempty"`

	// How long each may wait. Default: 30s; -1: for ever.
	Timeout caddy.Duration `json:"timeout,omitempty"`
}

const (
	defaultQueueSize    = 10_000
	defaultQueueTimeout = 30 * time.Second
)

// limits is a LimitsConfig resolved.
type limits struct {
	RequestTimeout time.Duration // 0: for ever
	QueueSize      int           // at least 1
	QueueTimeout   time.Duration // 0: for ever
}

// limits applies the defaults. Config must be valid.
func (c *LimitsConfig) limits() limits {
	queue := c.Queue
	if queue == nil {
		queue = new(QueueConfig)
	}
	return limits{
		RequestTimeout: limit(c.RequestTimeout, 0),
		QueueSize:      cmp.Or(queue.Size, defaultQueueSize),
		QueueTimeout:   limit(queue.Timeout, defaultQueueTimeout),
	}
}

// validateLimits checks how many requests may wait, and how long they may take.
func (c *LimitsConfig) validateLimits() error {
	if err := validateTimeout("request_timeout", c.RequestTimeout); err != nil {
		return err
	}
	if c.Queue == nil {
		return nil
	}
	if c.Queue.Size < 0 {
		return wrong("queue size", "%d is not possible; give 1 or more, or leave it out for %d", c.Queue.Size, defaultQueueSize)
	}
	return validateTimeout("queue timeout", c.Queue.Timeout)
}

// queueSubdirectives are the settings of the queue block.
var queueSubdirectives = map[string]subdirective{
	"size": {args: "N", set: func(c *Config, args []string) (err error) {
		c.Queue.Size, err = parseCount("queue size", args[0])
		return err
	}},
	"timeout": timeout("queue timeout", func(c *Config) *caddy.Duration { return &c.Queue.Timeout }),
}

func setQueue(c *Config, _ []string) error {
	c.Queue = new(QueueConfig)
	return nil
}
