package caddysnake

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/dustin/go-humanize"
)

// RecyclingConfig says when a worker that is well is replaced all the same: a new one is started, gets the requests when
// it is ready, and the old one ends when those that it has are through. By default none is.
type RecyclingConfig struct {
	// How many requests a worker gets before it is replaced, WebSockets included.
	MaxRequests int `json:"max_requests,omitempty"`

	// Up to how many more it gets, chosen at random for each worker, so that not all come to an end together.
	MaxRequestsJitter int `json:"max_requests_jitter,omitempty"`

	// How much memory a worker's process may hold (its resident set), in bytes. Linux only, and not for threads.
	MaxMemory int64 `json:"max_memory,omitempty"`

	// How long a worker serves before it is replaced. Each worker takes up to a tenth off, at random.
	MaxAge caddy.Duration `json:"max_age,omitempty"`
}

// recycling is a RecyclingConfig resolved. 0 stands for no limit.
type recycling struct {
	MaxRequests       int
	MaxRequestsJitter int
	MaxMemory         int64
	MaxAge            time.Duration
}

const (
	// memoryTick is how often the memory of workers is looked at.
	memoryTick = 2 * time.Second
	// leastMemory is the smallest max_memory: the worker itself takes most of it.
	leastMemory = 32 << 20
)

// What a worker's replacement gives as its reason in the log.
const (
	byRequests = "max_requests"
	byMemory   = "max_memory"
	byAge      = "max_age"
)

// recycling applies no defaults: what is not given is no limit. Config must be valid.
func (c *Config) recycling() recycling {
	return recycling{c.MaxRequests, c.MaxRequestsJitter, c.MaxMemory, time.Duration(c.MaxAge)}
}

func (c *Config) validateRecycling() error {
	switch {
	case c.MaxRequests < 0:
		return wrong("max_requests", "%d is not possible; give 1 or more, or leave it out for no limit", c.MaxRequests)
	case c.MaxRequestsJitter < 0:
		return wrong("max_requests", "a jitter of %d is not possible; give 1 or more, or leave it out", c.MaxRequestsJitter)
	case c.MaxRequestsJitter > 0 && c.MaxRequests == 0:
		return wrong("max_requests", "there is a jitter (max_requests_jitter) but no max_requests; give both, or none")
	case c.MaxMemory != 0 && c.WorkersRuntime == runtimeThread:
		return wrong("max_memory", "a thread's memory is that of Caddy's whole process; remove it%s", advise(", or use workers_runtime process", ""))
	case c.MaxMemory != 0 && runtime.GOOS != "linux":
		return wrong("max_memory", "how much a process holds is known on Linux only; remove it, or use max_requests or max_age")
	case c.MaxMemory != 0 && c.MaxMemory < leastMemory:
		return wrong("max_memory", "%d bytes are hardly more than Python takes for itself; give %s or more",
			c.MaxMemory, humanize.IBytes(leastMemory))
	case c.MaxAge < 0:
		return wrong("max_age", "%s is not possible; give a duration such as 12h, or leave it out for no limit", time.Duration(c.MaxAge))
	}
	return nil
}

func setMaxRequests(c *Config, args []string) (err error) {
	if c.MaxRequests, err = parseCount("max_requests", args[0]); err == nil && len(args) > 1 {
		c.MaxRequestsJitter, err = parseCount("max_requests", args[1])
	}
	return err
}

func setMaxMemory(c *Config, args []string) (err error) {
	c.MaxMemory, err = parseMemory(args[0])
	return err
}

func setMaxAge(c *Config, args []string) (err error) {
	c.MaxAge, err = parseAge(args[0])
	return err
}

func parseMemory(text string) (int64, error) {
	size, err := humanize.ParseBytes(text)
	if err != nil || size == 0 || size > 1<<50 {
		return 0, wrong("max_memory", "%q is not possible; give a size such as 512MiB", text)
	}
	return int64(size), nil
}

func parseAge(text string) (caddy.Duration, error) {
	age, err := caddy.ParseDuration(text)
	if err != nil || age <= 0 {
		return 0, wrong("max_age", "%q is not possible; give a duration such as 12h", text)
	}
	return caddy.Duration(age), nil
}

// requestLimit is how many requests a new worker gets before it is replaced; 0 for no limit.
func (r recycling) requestLimit() uint64 {
	if r.MaxRequests == 0 {
		return 0
	}
	return uint64(r.MaxRequests + rand.IntN(r.MaxRequestsJitter+1))
}

// age returns a channel that gets something when a new worker has served for long enough; nil for no limit.
func (r recycling) age() <-chan time.Time {
	if r.MaxAge == 0 {
		return nil
	}
	return time.After(r.MaxAge - rand.N(r.MaxAge/10+1))
}

// watchMemory has workers replaced that hold too much, until the pool is cancelled.
func (p *pool) watchMemory() {
	ticker := time.NewTicker(memoryTick)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-p.ctx.Done():
			return
		}
		for _, w := range p.readyWorkers() {
			if residentMemory(w.interp.Pid()) > p.settings.MaxMemory {
				w.renew(byMemory)
			}
		}
	}
}

// residentMemory is how much memory a process holds, in bytes; 0 if that is not known, or it has gone.
func residentMemory(pid int) int64 {
	// "size resident shared ...", in pages: proc_pid_statm(5).
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	var size, resident int64
	if _, err := fmt.Sscan(string(statm), &size, &resident); err != nil {
		return 0
	}
	return resident * int64(os.Getpagesize())
}
