package caddysnake

import (
	"errors"
	"os"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
)

// openDescriptors is how many descriptors this process has open.
func openDescriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// withDescriptors calls f while this process may open so many descriptors, and no more.
func withDescriptors(t *testing.T, room int, f func()) {
	t.Helper()
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	free, err := syscall.Dup(0) // the lowest number that is free
	if err != nil {
		t.Fatal(err)
	}
	_ = syscall.Close(free)
	fewer := before
	fewer.Cur = uint64(free + room)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &fewer); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
			t.Fatal(err)
		}
	}()
	f()
}

func TestAThreadThatCannotBeStartedLeavesNoDescriptors(t *testing.T) {
	noInterpreter := errors.New("no interpreter")
	embedded.failed = noInterpreter
	defer func() { embedded.failed = nil }()
	launch := new(generation).launch(new(python))
	for room := range 100 {
		before := openDescriptors(t)
		var err error
		withDescriptors(t, room, func() {
			_, _, err = launch(settings{limits: limits{RequestTimeout: time.Second}}, 1, zap.NewNop())
		})
		if left := openDescriptors(t) - before; left != 0 {
			t.Errorf("%d descriptors are left after %v", left, err)
		}
		if errors.Is(err, noInterpreter) {
			return // it had all that it needed
		}
		if !errors.Is(err, syscall.EMFILE) {
			t.Fatal(err)
		}
	}
	t.Fatal("a start opens more than a hundred descriptors")
}
