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
		percent := 100
		nowAndAfterCollections(func() { percent = tuneHeap(percent) })
	}
})

// tuneHeap sets the percentage that makes the next collection begin at heapFloor, or at twice the live heap if that is
// more. It takes the percentage that is set, and returns the one that is now.
func tuneHeap(set int) int {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	percent := floorPercent(live[0].Value.Uint64())
	// Setting it stops the world for a moment: only when it makes a difference.
	if percent <= set*5/4 && percent >= set*4/5 {
		return set
	}
	debug.SetGCPercent(percent)
	return percent
}

// floorPercent is the GOGC for a live heap of so many bytes.
func floorPercent(live uint64) int {
	const mib = 1 << 20
	return max(100, int(heapFloor*100/max(live, mib))-100)
}

// gcSentinel is garbage at all times, so that its finalizer runs after each collection.
type gcSentinel struct{ _ [16]byte }

// nowAndAfterCollections calls f now, and then after each collection of garbage, which load makes happen some times a
// second and idleness every two minutes. f runs in the goroutine of finalizers: it must be short.
func nowAndAfterCollections(f func()) {
	var finalizer func(*gcSentinel)
	finalizer = func(sentinel *gcSentinel) {
		f()
		runtime.SetFinalizer(sentinel, finalizer)
	}
	finalizer(&gcSentinel{})
}
