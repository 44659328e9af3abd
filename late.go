package caddysnake

import "time"

// Requests come late to a handler when its configuration has gone before them: net/http had just read them, an HTTP/2 client
// sent them before it saw GOAWAY (RFC 9113, section 6.8), or a handler before it in the route took its time, such as
// forward_auth. Caddy does not tell when the last one is through. The old workers wait for lateTime; after that, what
// has taken the app's place answers.

// lateTime is how long after a reload the old workers still serve requests.
const lateTime = time.Second

// successor is the place of the same app in a config that runs, nil if none has it.
func (ref *poolRef) successor() *poolRef {
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

// successor is the place of the same template in a config that runs, whatever else it says; nil if none has it.
func (ref *dynamicRef) successor() *dynamicRef {
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
