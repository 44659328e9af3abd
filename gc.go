package caddysnake

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
)

// heapFloor is the size below which Caddy's heap may grow before it is collected, in bytes. With a live heap of a few MiB,
// Go would collect it dozens of times a second under load; docs/adr/0002-heap-floor.md has the figures.
const heapFloor = 32 << 20

// raiseHeapFloor keeps the garbage collector from running while the heap is smaller than heapFloor. It does nothing if the
// user has set GOGC. A memory limit (GOMEMLIMIT, which Caddy sets to fit its container) counts as ever.
var raiseHeapFloor = sync.OnceFunc(func() {
	if os.Getenv("GOGC") == "" {
		tuneHeap(&gcSentinel{})
	}
})

// gcSentinel is garbage at all times, so that its finalizer runs after each collection.
type gcSentinel struct{ _ [16]byte }

// gcPercent is what the last tuneHeap set. Only finalizers run it, one at a time.
var gcPercent = 100

// tuneHeap sets the percentage that makes the next collection begin at heapFloor, or at twice the live heap if that is
// more, and comes back after it.
func tuneHeap(sentinel *gcSentinel) {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	percent := floorPercent(live[0].Value.Uint64())
	// Setting it stops the world for a moment: only when it makes a difference.
	if percent > gcPercent*5/4 || percent < gcPercent*4/5 {
		gcPercent = percent
		debug.SetGCPercent(percent)
	}
	runtime.SetFinalizer(sentinel, tuneHeap)
}

// floorPercent is the GOGC for a live heap of so many bytes.
func floorPercent(live uint64) int {
	const mib = 1 << 20
	return max(100, int(heapFloor*100/max(live, mib))-100)
}
