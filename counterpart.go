package caddysnake

import (
	"context"
	"time"
)

// A handler gets requests before its config has started its apps, and after they have stopped. Early ones, because Caddy
// starts its apps in no particular order: the HTTP servers may accept while Python is being imported, for as long as that
// takes. Late ones, because net/http had just read them, an HTTP/2 client sent them before it saw GOAWAY (RFC 9113, section
// 6.8), or a handler before this one in the route took its time, such as forward_auth; Caddy does not tell when the last one
// is through. Both are answered by the same app in the config that runs, if it has it.

// lateTime is how long after a reload the old workers still serve requests.
const lateTime = time.Second

// counterpart is the place of the same app in a config that runs, nil if there is none.
func (ref *poolRef) counterpart() *poolRef {
	s := ref.current()
	for _, other := range liveRefs() {
		if other == ref {
			continue
		}
		if o := other.current(); o.Interface == s.Interface && o.App == s.App && o.WorkingDir == s.WorkingDir {
			return other
		}
	}
	return nil
}

// early returns the pool that answers although this config's is still starting, nil if there is none: with autoreload, what
// is there may be old code.
func (ref *poolRef) early() *pool {
	if ref.config.autoreloads() {
		return nil
	}
	if other := ref.counterpart(); other != nil {
		if p := other.pool.Load(); p != nil && !p.closed.Load() {
			return p
		}
	}
	return nil
}

// late returns what answers in place of a config that has gone, if anything does.
func (ref *poolRef) late(ctx context.Context) (*pool, error) {
	if other := ref.counterpart(); other != nil {
		return other.awaitOwn(ctx)
	}
	return nil, errPoolClosed
}

// counterpart is the place of the same template in a config that runs, whatever else that says; nil if there is none.
func (ref *dynamicRef) counterpart() *dynamicRef {
	c := &ref.template.config
	iface, app := c.app()
	apps.mu.Lock()
	defer apps.mu.Unlock()
	for _, live := range apps.live {
		for _, other := range live.dynamic {
			o := &other.template.config
			if i, a := o.app(); other != ref && i == iface && a == app && o.WorkingDir == c.WorkingDir {
				return other
			}
		}
	}
	return nil
}
