package wire

import "time"

// What follows finds requests that have been open for long without a time of their own: streams are numbered in the order
// in which they are opened, so those up to the number that was the newest some time ago are at least that old.

// Overdue is a stream whose response has not begun.
type Overdue struct {
	Stream uint32
	Note   any // what Open was given
}

// Newest returns the number of the stream that was opened last, 0 if none was.
func (c *Conn) Newest() uint32 {
	c.streamMu.Lock()
	defer c.streamMu.Unlock()
	return c.last
}

// Overdue returns the open streams up to number mark whose response has not begun, but those that have been expired, or
// extended since then. A stream that was given up is among them: the app may still be busy with it.
func (c *Conn) Overdue(mark uint32, since time.Time) []Overdue {
	var found []Overdue
	c.streamMu.Lock()
	defer c.streamMu.Unlock()
	for id, s := range c.streams {
		if int32(mark-id) < 0 { // numbers wrap around
			continue
		}
		s.mu.Lock()
		if !s.began && !s.accepted && s.expired.IsZero() && !s.extended.After(since) {
			found = append(found, Overdue{id, s.note})
		}
		s.mu.Unlock()
	}
	return found
}

// Extend has the stream's time begin anew.
func (c *Conn) Extend(id uint32) {
	c.streamMu.Lock()
	defer c.streamMu.Unlock()
	if s := c.streams[id]; s != nil {
		s.mu.Lock()
		s.extended = time.Now()
		s.mu.Unlock()
	}
}

// Expire has Recv fail with cause, whatever else comes, unless the response has begun meanwhile or the stream is closed.
// waited: there is somebody to call Recv; otherwise the stream was given up.
func (c *Conn) Expire(id uint32, cause error) (expired, waited bool) {
	c.streamMu.Lock()
	defer c.streamMu.Unlock()
	s := c.streams[id]
	if s == nil {
		return false, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.began || s.accepted {
		return false, false
	}
	s.expired = time.Now()
	s.err = cause
	notify(s.arrived) // the relaying goroutine may wait for another that reads
	c.interrupt()     // or read itself
	return true, !s.resetted
}

// Expired tells how many of the open streams have been expired, since when the first of these has, and whether there are
// others.
func (c *Conn) Expired() (count int, since time.Time, others bool) {
	c.streamMu.Lock()
	defer c.streamMu.Unlock()
	for _, s := range c.streams {
		s.mu.Lock()
		at := s.expired
		s.mu.Unlock()
		if at.IsZero() {
			others = true
			continue
		}
		if count == 0 || at.Before(since) {
			since = at
		}
		count++
	}
	return count, since, others
}
