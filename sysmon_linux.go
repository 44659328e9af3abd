package caddysnake

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// calmSysmon keeps the monitor of Go's runtime, "sysmon", from interrupting whoever works. It is a thread of its own that
// wakes up thousands of times a second under load, for 12 us, and the kernel lets it in at once: where workers fill the
// processors, most of the times that one of them loses its caches are its doing. Under the policy SCHED_BATCH it takes a
// processor that is free, or its turn, which comes within some milliseconds; docs/adr/0018-sysmon.md has the figures. It
// does nothing if the user has given Caddy another policy than the usual one (chrt, systemd's CPUSchedulingPolicy).
var calmSysmon = sync.OnceValue(func() error {
	sysmon, err := sysmonThread()
	if err != nil {
		return fmt.Errorf("look for the runtime's monitor: %w", err)
	}
	policy, err := schedulingPolicy(sysmon)
	if err != nil || policy != unix.SCHED_NORMAL {
		return err
	}
	spawner() <- func() {} // has its thread now: workers inherit from it, and it must not inherit from sysmon
	if err := setSchedulingPolicy(sysmon, unix.SCHED_BATCH); err != nil {
		return err
	}
	nowAndAfterCollections(func() { endInheritance(sysmon) })
	return nil
})

// sysmonThread is the thread of the runtime's monitor: the first that Go's main function starts, and the kernel lists a
// process's threads in the order of their start.
func sysmonThread() (int, error) {
	threads, err := threadsOfCaddy()
	if err == nil && len(threads) < 2 {
		err = errors.New("there is one thread only")
	}
	if err != nil {
		return 0, err
	}
	return threads[1], nil
}

// endInheritance gives the usual policy back to threads that have another because sysmon started them, or a thread that
// sysmon started.
func endInheritance(sysmon int) {
	threads, _ := threadsOfCaddy()
	for _, thread := range threads {
		// An error means that the thread has ended.
		if policy, err := schedulingPolicy(thread); err == nil && policy == unix.SCHED_BATCH && thread != sysmon {
			_ = setSchedulingPolicy(thread, unix.SCHED_NORMAL)
		}
	}
}

// threadsOfCaddy are the threads of this process, in the order of their start.
func threadsOfCaddy() ([]int, error) {
	folder, err := os.Open("/proc/self/task")
	if err != nil {
		return nil, err
	}
	defer folder.Close()
	names, err := folder.Readdirnames(0)
	if err != nil {
		return nil, err
	}
	threads := make([]int, len(names))
	for i, name := range names {
		if threads[i], err = strconv.Atoi(name); err != nil {
			return nil, err
		}
	}
	return threads, nil
}

// schedulingPolicy is a thread's policy, sched_getscheduler(2).
func schedulingPolicy(thread int) (uintptr, error) {
	policy, _, errno := unix.Syscall(unix.SYS_SCHED_GETSCHEDULER, uintptr(thread), 0, 0)
	if errno != 0 {
		return 0, fmt.Errorf("read a thread's scheduling policy: %w", errno)
	}
	return policy, nil
}

// setSchedulingPolicy gives a thread a policy that knows no priorities; its nice value stays. It is sched_setscheduler(2),
// because systemd's RestrictRealtime forbids sched_setattr(2).
func setSchedulingPolicy(thread int, policy uintptr) error {
	var priority int32
	_, _, errno := unix.Syscall(unix.SYS_SCHED_SETSCHEDULER, uintptr(thread), policy, uintptr(unsafe.Pointer(&priority)))
	if errno != 0 {
		return fmt.Errorf("set a thread's scheduling policy: %w", errno)
	}
	return nil
}
